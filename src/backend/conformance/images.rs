//! Stages that turn images into images: ingest, background, filter, weighing out.

use super::*;
use crate::backend::TileSource;
use crate::frame::{Frame, Pixels};
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::weigh::Footprint;

/// Frames of every pixel type, with everything that makes a pixel missing or saturated.
fn awkward_frames(width: usize, height: usize) -> Vec<Frame<'static>> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut draw =
        |low: i32, high: i32| -> Vec<i32> { (0..width * height).map(|_| rng.random_range(low..=high)).collect() };
    let mask: Vec<bool> = draw(0, 9).into_iter().map(|v| v == 0).collect();
    let bytes: Vec<u8> = draw(0, 255).into_iter().map(|v| v as u8).collect();
    let words: Vec<u16> = draw(0, 65_535).into_iter().map(|v| v as u16).collect();
    let shorts: Vec<i16> = draw(-32_768, 32_767).into_iter().map(|v| v as i16).collect();
    let longs = draw(i32::MIN, i32::MAX);
    let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30, -1e-30, f32::MAX];
    let reals: Vec<f32> = draw(-9_999, 9_999)
        .into_iter()
        .map(|v| special.get((v + 9_999) as usize % 23).copied().unwrap_or(v as f32 * 0.37))
        .collect();
    let frame = |pixels: Pixels<'static>| Frame::new(pixels, width, height).unwrap();
    let (longest, blank) = (longs[0], shorts[shorts.len() / 2]);
    vec![
        frame(bytes.clone().into()),
        frame(bytes.into()).with_saturation(200.0).with_blank(17),
        frame(words.clone().into()).with_saturation(60_000.0).with_mask(mask.clone()).unwrap(),
        frame(words.into()).with_saturation(f64::NAN),
        frame(shorts.into()).with_blank(blank.into()).with_saturation(-20_000.5),
        frame(longs.into()).with_blank(longest).with_mask(mask.clone()).unwrap(),
        frame(reals.clone().into()).with_saturation(3_000.0).with_mask(mask).unwrap(),
        frame(reals.into()).with_saturation(f64::INFINITY).with_blank(0),
    ]
}

#[test]
fn ingest_is_exact() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        for (i, frame) in awkward_frames(size.0, size.1).iter().enumerate() {
            pair.each(|b| b.ingest(frame).unwrap());
            pair.check_images(&format!("frame {i} of {size:?}"), exact, exact);
        }
    }
}

/// Compares tiles; the number of roundings in a sum is that of one invocation's share and of the tree above it.
fn check_tiles(what: &str, cpu: &[TileStatistics], gpu: &[TileStatistics]) {
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    for (c, g) in cpu.iter().zip(gpu) {
        assert_eq!((c.n_usable, c.n_clipped), (g.n_usable, g.n_clipped), "{what}: {c:?} {g:?}");
        let roundings = c.n_clipped as f32 / 256.0 + 16.0;
        let spread = c.sd + (c.mean - c.median).abs();
        let near = |a: f32, b: f32, bound: f32| (a - b).abs() <= bound;
        assert!(near(c.median, g.median, 4.0 * EPS * (c.median.abs() + c.sd)), "{what}: {c:?} {g:?}");
        assert!(near(c.mean, g.mean, EPS * (roundings * spread + 2.0 * c.mean.abs())), "{what}: {c:?} {g:?}");
        let of_variance = 3.0 * roundings * EPS * spread * spread;
        assert!(near(c.sd, g.sd, of_variance / c.sd.max(1e-30) + 2.0 * EPS * c.sd), "{what}: {c:?} {g:?}");
    }
}

#[test]
fn tiles_agree() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let n = pair.len();
        let weights = weights_with_holes(n, 1.0, 3);
        let sky = noise(n, 4);
        let images: [(&str, Vec<f32>); 6] = [
            ("real", sky.iter().map(|v| 0.3 * v).collect()),
            ("far from zero", sky.iter().map(|v| 30_000.0 + 17.0 * v).collect()),
            ("integers", sky.iter().map(|v| (1_000.0 + 2.5 * v).round()).collect()),
            ("stars", sky.iter().enumerate().map(|(i, v)| if i % 29 == 0 { 900.0 } else { *v }).collect()),
            ("constant", vec![-7.0; n]),
            ("two values", (0..n).map(|i| (i % 2) as f32 - 0.5).collect()),
        ];
        for (name, image) in images {
            pair.write([&image, &weights, &image, &weights]);
            for (mesh_px, most_px) in [(16, usize::MAX), (64, usize::MAX), (64, 21), (512, usize::MAX)] {
                let whole = Mesh::new(size.0, size.1, mesh_px);
                let mesh = Mesh { most_px: whole.most_px.min(most_px), ..whole };
                for (source, mesh) in [(TileSource::Values, mesh), (TileSource::Filtered, mesh.with_half_of_rows())] {
                    let (cpu, gpu) = pair.each(|b| b.tile_statistics(mesh, source).unwrap());
                    check_tiles(&format!("{name}, {size:?}, {source:?}, {mesh:?}"), &cpu, &gpu);
                }
            }
        }
        pair.write([&vec![0.0; n]; 4]);
        let (_, none) = pair.each(|b| b.tile_statistics(Mesh::new(size.0, size.1, 64), TileSource::Values).unwrap());
        assert!(none.iter().all(|t| *t == TileStatistics::default()));
    }
}

#[test]
fn the_map_is_taken_off_alike() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let mesh = Mesh::new(size.0, size.1, 32);
        let tile = |i: usize| {
            let mean = 1_000.0 + 40.0 * ((i * 7) % 5) as f32;
            TileStatistics { n_usable: 1024, n_clipped: 1020, mean, median: mean, sd: 5.0 + (i % 3) as f32 }
        };
        let tiles: Vec<_> =
            (0..mesh.len()).map(|i| TileStatistics { n_usable: mesh.area(i) as u32, ..tile(i) }).collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        let values: Vec<f32> = noise(pair.len(), 5).iter().map(|v| 1_050.0 + 6.0 * v).collect();
        let weights = weights_with_holes(pair.len(), 1.0, 6);
        pair.write([&values, &weights, &values, &weights]);
        pair.each(|b| b.normalise(&map).unwrap());
        // Position in the mesh, spline weights and 16 products: 40 roundings of terms no larger than the level;
        // where the position is rounded, the level moves by its slope, less than the level itself per tile.
        let largest = map.level.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let cells = mesh.nx.max(mesh.ny) as f32;
        let expected = pair.cpu.read_images().unwrap().1;
        let what = format!("normalise {size:?}");
        pair.check_images(
            &what,
            |_| (40.0 + cells) * EPS * largest,
            |i| 2.0 * (40.0 + cells) * EPS * expected[i].abs(),
        );
    }
}

#[test]
fn lines_are_taken_off_alike() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let values: Vec<f32> = noise(pair.len(), 15).iter().map(|v| 1_050.0 + 6.0 * v).collect();
        let weights = weights_with_holes(pair.len(), 0.3, 16);
        pair.write([&values, &weights, &values, &weights]);
        let offsets = noise(2 * (size.0 + size.1), 17);
        let factors = (0..size.0 + size.1).map(|i| f32::from(i % 5 != 0)).collect();
        let lines = Lines::new(size.0, size.1, offsets, factors);
        pair.each(|b| b.take_off_lines(&lines).unwrap());
        // Two roundings, of the sum and of the difference.
        pair.check_images(&format!("lines {size:?}"), |_| 2.0 * EPS * 1_100.0, exact);
        assert!(pair.cpu.read_images().unwrap().1.iter().filter(|w| **w == 0.0).count() > pair.len() / 5);
    }
}

#[test]
fn the_filter_agrees() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let n = pair.len();
        let residual: Vec<f32> = noise(n, 8).iter().map(|v| v * v * v * 10.0).collect();
        let weights = weights_with_holes(n, 0.04, 9);
        pair.write([&residual, &weights, &residual, &weights]);
        for (sigma, clip, with_saturated) in [(0.5, 6.0, false), (1.5, 6.0, true), (4.0, 1e6, false)] {
            let kernel = PsfKernel::new(sigma);
            pair.each(|b| b.filter(&kernel, clip, with_saturated).unwrap());
            let (cpu, gpu) = pair.each(|b| b.read_filtered().unwrap());
            // Taps sum to one: each product and each addition of two passes rounds a share of the largest input.
            let roundings = 4.0 * kernel.taps.len() as f32 + 8.0;
            let largest = residual.iter().fold(0.0_f32, |m, r| m.max(0.2 * r.abs())).min(clip);
            let what = format!("filter {size:?} sigma {sigma}");
            check(&what, &cpu.0, &gpu.0, |_| roundings * EPS * largest);
            check(&format!("{what}: coverage"), &cpu.1, &gpu.1, |_| roundings * EPS);
        }
    }
}

#[test]
fn lone_pixels_are_weighed_out_exactly() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        // Small integers and powers of two: no rounding on either side.
        let residual: Vec<f32> = (0..pair.len()).map(|_| [0.0, 1.0, 2.0, 3.0, 64.0][rng.random_range(0..5)]).collect();
        let weights = weights_with_holes(pair.len(), 0.25, 13);
        pair.write([&residual, &weights, &residual, &weights]);
        pair.each(|b| b.weigh_out_hot(5.0, 6.0).unwrap());
        pair.check_images(&format!("lone pixels {size:?}"), exact, exact);
    }
}

#[test]
fn footprints_are_weighed_out_exactly() {
    for size in SIZES {
        let Some(mut pair) = Pair::new(size) else { return };
        let weights = weights_with_holes(pair.len(), 2.0, 10);
        pair.write([&weights; 4]);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut footprints: Vec<Footprint> = (0..8)
            .map(|_| Footprint {
                x: rng.random_range(0..size.0) as f32,
                y: rng.random_range(0..size.1) as f32,
                radius_px: rng.random_range(1..12) as f32,
            })
            .collect();
        // A hot pixel, one beyond the border, one that reaches in from there.
        footprints.push(Footprint { x: 0.0, y: 0.0, radius_px: 1.5 });
        footprints.push(Footprint { x: -9.0, y: -9.0, radius_px: 5.0 });
        footprints.push(Footprint { x: size.0 as f32 + 2.0, y: 1.0, radius_px: 5.0 });
        for list in [&footprints[..], &[]] {
            pair.each(|b| b.weigh_out(list).unwrap());
            pair.check_images(&format!("weigh out {size:?}"), exact, exact);
        }
    }
}
