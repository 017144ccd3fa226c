//! Stages that return lists from the filtered image: compact sources and peaks of the transform.

use super::*;
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest, step_of_sums, suppress};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::weigh::CompactSource;

#[test]
fn compact_sources_agree() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let n = pair.len();
        let weights = weights_with_holes(n, 0.3, 20);
        let residual = noise(n, 21);
        // Integers have plateaus and ties.
        let filtered: Vec<f32> = integers(n, 3, 22).iter().map(|v| v * v * v).collect();
        pair.write([&residual, &weights, &filtered, &weights]);
        for (threshold, wing_level) in [(20.0, 3.0), (-1.0, -8.0)] {
            let (cpu, gpu) = pair.each(|b| b.find_compact(threshold, wing_level).unwrap());
            assert_eq!(cpu.len(), gpu.len(), "{size:?}");
            for (c, g) in cpu.iter().zip(&gpu) {
                // A square root and a product.
                assert!((c.centre - g.centre).abs() <= 8.0 * EPS * c.centre.abs(), "{c:?} {g:?}");
                assert_eq!(CompactSource { centre: 0.0, ..*c }, CompactSource { centre: 0.0, ..*g }, "{size:?}");
            }
        }
    }
}

/// Peaks by position: near ties in significance may change places.
fn by_position(mut peaks: Vec<Peak>) -> Vec<Peak> {
    let key = |p: &Peak| [p.segment.start.x, p.segment.start.y, p.segment.end.x, p.segment.end.y];
    peaks.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap().then(a.snr.total_cmp(&b.snr)));
    peaks
}

fn check_peaks(what: &str, cpu: Vec<Peak>, gpu: Vec<Peak>, relative: f64) {
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    for (c, g) in by_position(cpu).iter().zip(by_position(gpu)) {
        assert_eq!(c.segment, g.segment, "{what}");
        assert!((c.snr - g.snr).abs() <= relative * c.snr, "{what}: {c:?} {g:?}");
    }
}

#[test]
fn peaks_agree() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let n = pair.len();
        // Integers, and coverages in eighths: every node's sum is exact.
        let filtered = integers(n, 4, 30);
        let uneven: Vec<f32> = filtered.iter().map(|v| 0.185 * 5.0 * v).collect();
        let mut coverage: Vec<f32> = integers(n, 4, 31).iter().map(|v| (v + 4.0) / 8.0).collect();
        coverage.iter_mut().step_by(5).for_each(|c| *c = 0.0);
        pair.write([&filtered, &coverage, &filtered, &coverage]);
        let set = |wedges, max_nodes| SegmentSet::new(size.0, size.1, PsfKernel::new(1.5), wedges, max_nodes);
        let whole = set(1, pair.gpu.task_size().1);
        let cuts = [set(1, n * 3), set(3, usize::MAX), set(8, usize::MAX)];
        assert!(n < 4_000 || cuts.iter().all(|cut| cut.tasks.len() > whole.tasks.len()));
        for threshold in [12.0, 4.0] {
            let plain = SearchRequest { threshold, limit: 1e9, step: None, weighted: false };
            let (cpu, gpu) = pair.each(|b| b.find_peaks(&whole, &plain).unwrap());
            let again = pair.gpu.find_peaks(&whole, &plain).unwrap();
            assert_eq!(gpu, again, "the same in every run");
            for cut in &cuts {
                let in_wedges = pair.gpu.find_peaks(cut, &plain).unwrap();
                assert_eq!(gpu, in_wedges, "{size:?}: the cut into wedges changes nothing");
            }
            assert_eq!(cpu, gpu, "{size:?}, threshold {threshold}");
            // Whole numbers of any step are, too; some values lie half way between two.
            let in_steps = SearchRequest { limit: 3.3, step: Some(0.37), threshold: 0.37 * threshold, weighted: false };
            pair.write([&filtered, &coverage, &uneven, &coverage]);
            let (cpu, gpu) = pair.each(|b| b.find_peaks(&whole, &in_steps).unwrap());
            assert_eq!(cpu, gpu, "{size:?}, threshold {threshold}, in steps");
            let in_wedges = pair.gpu.find_peaks(&cuts[1], &in_steps).unwrap();
            assert_eq!(gpu, in_wedges, "{size:?}: the cut into wedges changes nothing in steps");
            pair.write([&filtered, &coverage, &filtered, &coverage]);
            // A share, a square root and a division, none of them correctly rounded on every device.
            let weighted = SearchRequest { threshold, limit: 1e9, step: None, weighted: true };
            let (cpu, gpu) = pair.each(|b| b.find_peaks(&whole, &weighted).unwrap());
            check_peaks(&format!("{size:?}, weighted"), cpu, gpu, 16.0 * f64::from(EPS));
        }
    }
}

#[test]
fn whole_numbers_hold_the_brightest_and_the_darkest_light() {
    for size in [(64, 90), (131, 97)] {
        let Some(mut pair) = Pair::new(size) else { return };
        let set = SegmentSet::new(size.0, size.1, PsfKernel::new(1.5), 1, usize::MAX);
        let limit = 0.9;
        let request =
            SearchRequest { threshold: 3.0, limit, step: step_of_sums(limit, set.most_rows()), weighted: false };
        for (sign, has_peaks) in [(1.0, true), (-1.0, false)] {
            // Neighbours of the brightest are dark here and there.
            let image: Vec<f32> = (0..pair.len()).map(|i| if i % 37 == 0 { -10.0 } else { 10.0 } * sign).collect();
            pair.write([&image; 4]);
            let (cpu, gpu) = pair.each(|b| b.find_peaks(&set, &request).unwrap());
            assert_eq!((cpu, !gpu.is_empty()), (gpu, has_peaks), "{size:?}, {sign}");
        }
    }
}

#[test]
fn a_list_that_overflows_is_grown() {
    let Some(mut pair) = Pair::new((130, 97)) else { return };
    let filtered = integers(pair.len(), 4, 40);
    pair.write([&filtered; 4]);
    let set = SegmentSet::new(130, 97, PsfKernel::new(1.0), 2, usize::MAX);
    // Tens of thousands of nodes are peaks, some twenty in every cell: more than there is room for at first.
    let request = SearchRequest { threshold: 0.5, limit: 1e9, step: None, weighted: false };
    let (cpu, gpu) = pair.each(|b| b.find_peaks(&set, &request).unwrap());
    let cells = 17 * 13 * 4;
    assert!(cpu.len() > cells * 9 / 10, "peaks in {} of {cells} cells", cpu.len());
    assert_eq!(cpu, gpu);

    let Some(mut pair) = Pair::new((256, 200)) else { return };
    // Every second pixel of every second row is a maximum.
    let lattice: Vec<f32> = (0..pair.len()).map(|i| f32::from(i % 256 % 2 == 0 && i / 256 % 2 == 0)).collect();
    pair.write([&lattice; 4]);
    let (cpu, gpu) = pair.each(|b| b.find_compact(0.5, 0.1).unwrap());
    assert_eq!((cpu.len(), &cpu), (128 * 100, &gpu));
}

#[test]
fn places_that_overflow_get_more_room() {
    let Some(mut pair) = Pair::new((130, 97)) else { return };
    let filtered = integers(pair.len(), 4, 41);
    let set = SegmentSet::new(130, 97, PsfKernel::new(1.0), 1, usize::MAX);
    pair.gpu = GpuBackend::new(context().unwrap()).unwrap().with_room_for_places(16);
    pair.gpu.prepare(130, 97).unwrap();
    pair.write([&filtered; 4]);
    let request = SearchRequest { threshold: 9.0, limit: 1e9, step: None, weighted: false };
    let (cpu, gpu) = pair.each(|b| b.find_peaks(&set, &request).unwrap());
    assert!(pair.gpu.room_for_places() > 16, "{} peaks of fewer places", cpu.len());
    assert!(!cpu.is_empty());
    assert_eq!(cpu, gpu);
}

#[test]
fn frames_too_small_for_a_segment_have_no_peaks() {
    let Some(mut pair) = Pair::new((5, 5)) else { return };
    pair.write([&[9.0; 25]; 4]);
    let set = SegmentSet::new(5, 5, PsfKernel::new(1.5), 1, usize::MAX);
    let (cpu, gpu) = pair.each(|b| {
        b.find_peaks(&set, &SearchRequest { threshold: 1.0, limit: 1e9, step: None, weighted: false }).unwrap()
    });
    assert!(cpu.is_empty() && gpu.is_empty());
}

#[test]
fn a_streak_is_found_at_the_same_place() {
    let Some(mut pair) = Pair::new((256, 200)) else { return };
    let n = pair.len();
    let ones = vec![1.0; n];
    let kernel = PsfKernel::new(1.5);
    for (slope, intercept) in [(0.0, 100.2), (0.3, 40.0), (1.0, -20.0), (-0.7, 190.0)] {
        let mut image = noise(n, 50);
        for x in 60..200 {
            let y = slope * x as f32 + intercept;
            image[y.round() as usize * 256 + x] += 4.0;
        }
        pair.write([&image, &ones, &image, &ones]);
        pair.each(|b| b.filter(&kernel, 6.0, false).unwrap());
        let set = SegmentSet::new(256, 200, kernel.clone(), 1, usize::MAX);
        let request = SearchRequest { threshold: 8.0, limit: 1e9, step: None, weighted: true };
        let (cpu, gpu) =
            pair.each(|b| suppress(&b.find_peaks(&set, &request).unwrap(), kernel.sigma_eff_px, usize::MAX));
        assert!(!cpu.is_empty(), "slope {slope}");
        assert_eq!(cpu[0].segment, gpu[0].segment, "slope {slope}");
        // 256 additions of noise of order one and the filter's own roundings.
        assert!((cpu[0].snr - gpu[0].snr).abs() < 300.0 * f64::from(EPS) * cpu[0].snr, "slope {slope}");
    }
}
