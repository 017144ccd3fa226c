//! A small row of the benchmark's star fields: streaks are found among stars, and nothing else is.

#[path = "../examples/evaluate/field.rs"]
mod field;
#[expect(dead_code, reason = "shared with the example, which says the rule")]
#[path = "../examples/evaluate/matching.rs"]
mod matching;
#[expect(dead_code, reason = "shared with the example, which makes other frames as well")]
#[path = "../examples/evaluate/scenes.rs"]
mod scenes;

use field::{Field, search_field};
use scenes::Placement;
use skystreak::{Detector, DetectorConfig, Device};

type AnyResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[test]
fn streaks_are_found_among_stars_and_nothing_else() {
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();
    let field = Field { size: 512, psf_sigma_px: 1.5, stars_per_mpix: 1000.0 };
    let (n_frames, mut found, mut wrong) = (24, 0, Vec::new());
    for frame in 0..n_frames {
        let placement = Placement::new([30.0, 100.0][frame % 2], Some(2), field.size);
        let outcome = search_field(&detector, &field, &placement, &[12.0], 41, frame).unwrap();
        found += outcome.streaks.iter().filter(|(_, found)| *found).count();
        wrong.extend(outcome.false_detections);
    }
    // 96 such frames gave 176 of 192 streaks (0.917), which 28 of 48 and fewer are less than 1 in a million from, and 4
    // false detections: 1 in 24 frames, ten and more of which are 1 in 10 million.
    assert!(found > 28, "{found} of {} streaks", 2 * n_frames);
    assert!(wrong.len() < 10, "false detections of S/N {wrong:?} in {n_frames} frames");
}
