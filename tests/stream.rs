//! Streams of frames: order, errors of single frames, bounded memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use skystreak::{Detector, DetectorConfig, Device, Error, Frame, Report, Segment, StreamConfig, simulate};

const WIDTH: usize = 220;

fn detector() -> Detector {
    Detector::new(DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() }).unwrap()
}

/// Frame `i` of a sequence: its streak starts at y = 30 + 3 i. The heights differ, and so do the times they take.
fn frame(i: usize) -> Frame<'static> {
    let height = [160, 300, 220][i % 3];
    let mut pixels = simulate::gaussian_frame(WIDTH, height, i as u64, 1.0);
    let y = 30.0 + 3.0 * i as f64;
    simulate::add_streak(&mut pixels, WIDTH, &Segment::from_coordinates(40.0, y, 150.0, y + 20.0), 1.5, 800.0);
    Frame::new(pixels, WIDTH, height).unwrap()
}

fn config(frames_in_flight: usize, memory_limit_bytes: u64) -> StreamConfig {
    let mut config = StreamConfig::default();
    (config.frames_in_flight, config.memory_limit_bytes) = (frames_in_flight, memory_limit_bytes);
    config
}

fn timeless(mut report: Report) -> Report {
    report.total_ms = 0.0;
    report.stages_ms.clear();
    report.operations_ms.clear();
    report.kernels_ms.clear();
    report
}

#[test]
fn a_stream_gives_the_reports_of_single_frames_in_order() {
    let detector = detector();
    let single: Vec<Report> = (0..12).map(|i| timeless(detector.detect(&frame(i)).unwrap())).collect();
    assert!(single.iter().all(|r| r.detections.len() == 1));
    for in_flight in [1, 2, 5] {
        let mut streamed = Vec::new();
        let summary = detector
            .stream(
                &config(in_flight, 1 << 30),
                (0..12).map(frame),
                |f| Ok(f.as_borrowed()),
                |_, report| {
                    streamed.push(timeless(report.unwrap()));
                },
            )
            .unwrap();
        assert_eq!(streamed, single, "{in_flight} in flight");
        assert_eq!((summary.frames, summary.failed), (12, 0));
        // The CPU computes one frame for every two cores.
        let at_once = in_flight.min((rayon::current_num_threads() / 2).max(1));
        assert!((1..=at_once).contains(&summary.most_in_flight), "{summary:?}");
    }
}

#[test]
fn the_error_of_one_frame_is_its_own() {
    fn open(i: &usize) -> skystreak::Result<Frame<'_>> {
        if i % 4 == 2 { Err(Error::Input(format!("frame {i} is half written"))) } else { Ok(frame(*i)) }
    }
    let mut seen = Vec::new();
    let summary = detector().stream(&config(3, 1 << 30), 0..10, open, |i, report| seen.push((i, report))).unwrap();
    assert!(seen.iter().enumerate().all(|(at, (i, _))| at == *i), "in the order of the source");
    for (i, report) in seen {
        match report {
            Ok(report) => assert!(i % 4 != 2 && report.detections.len() == 1),
            Err(error) => assert_eq!(error.to_string(), format!("input: frame {i} is half written")),
        }
    }
    assert_eq!((summary.frames, summary.failed), (10, 2));
}

#[test]
fn memory_keeps_to_its_budget() {
    let mut need = 0;
    let ask = |_, report: skystreak::Result<Report>| match report {
        Err(Error::Limit { requested, .. }) => need = need.max(requested),
        other => panic!("{other:?}"),
    };
    detector().stream(&config(4, 1000), (0..12).map(frame), |f| Ok(f.as_borrowed()), ask).unwrap();
    for frames_at_once in [1, 2] {
        let limit = need * frames_at_once as u64 + need / 10;
        let mut found = 0;
        let summary = detector()
            .stream(
                &config(4, limit),
                (0..12).map(frame),
                |f| Ok(f.as_borrowed()),
                |_, report| {
                    found += report.unwrap().detections.len();
                },
            )
            .unwrap();
        assert!(summary.peak_bytes <= limit && summary.most_in_flight <= frames_at_once, "{limit}: {summary:?}");
        assert_eq!(found, 12);
    }
    // Too little for a single frame: each says so.
    let mut refused = 0;
    let one_pixel = config(4, 1000);
    let summary = detector().stream(
        &one_pixel,
        (0..3).map(frame),
        |f| Ok(f.as_borrowed()),
        |_, report| {
            refused += usize::from(matches!(report, Err(Error::Limit { allowed: 1000, .. })));
        },
    );
    assert_eq!((refused, summary.unwrap().failed), (3, 3));
}

#[test]
fn a_fast_source_waits() {
    // Items out of the source that have not come back.
    let (alive, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let source = (0..20).inspect(|_| {
        most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    });
    let sink = |_: usize, _| {
        alive.fetch_sub(1, Ordering::SeqCst);
    };
    detector().stream(&config(2, 1 << 30), source, |i| Ok(frame(*i)), sink).unwrap();
    // Two for each in flight, and one that is being delivered.
    assert!(most.into_inner() <= 5);
}

#[test]
fn a_slow_source_is_not_waited_for() {
    // The source gives the next frame only when the report of the one before is there.
    let (delivered, next) = mpsc::channel();
    delivered.send(()).unwrap();
    let source = (0..4).inspect(move |_| next.recv().unwrap());
    let mut n = 0;
    let sink = |_, report: skystreak::Result<Report>| {
        n += report.unwrap().detections.len();
        // The last one finds nobody who listens.
        delivered.send(()).unwrap_or_default();
    };
    detector().stream(&config(3, 1 << 30), source, |i| Ok(frame(*i)), sink).unwrap();
    assert_eq!(n, 4);
}

#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn a_panic_ends_the_stream() {
    fn open(i: &usize) -> skystreak::Result<Frame<'_>> {
        assert_ne!(*i, 3, "the reader's bug");
        Ok(frame(*i))
    }
    drop(detector().stream(&config(2, 1 << 30), 0..8, open, |_, _| ()));
}

#[test]
fn no_frames_in_flight_is_no_stream() {
    let refused = detector().stream(&config(0, 1 << 30), 0..2, |i| Ok(frame(*i)), |_, _| ());
    assert!(matches!(refused, Err(Error::Config(_))));
}
