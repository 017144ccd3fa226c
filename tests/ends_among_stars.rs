//! Streaks among many stars are followed to their ends.
#![expect(unreachable_pub, reason = "the helper module is part of this program")]
#![expect(dead_code, reason = "other programs use more of the helper module")]

#[path = "support/tracks.rs"]
mod tracks;

use skystreak::simulate::{RandomStreaks, SceneConfig, simulate};
use skystreak::{Detector, DetectorConfig, Device, Flags};
use tracks::on_track;

/// Streaks fainter than this may be drawn out by a star without their error telling.
const CLEAR_SNR: f64 = 25.0;

#[test]
fn bright_streaks_are_found_whole() {
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();
    let mut n_ends = 0;
    // In each of these frames a streak of S/N 24 to 45 was once found 24 to 34 px short.
    for seed in [5016, 5048, 5053, 5057] {
        let random = RandomStreaks { n: 6, snr: [8.0, 60.0], ..RandomStreaks::default() };
        let scene =
            SceneConfig { seed, stars_per_mpix: 2500.0, random_streaks: vec![random], ..SceneConfig::default() };
        let made = simulate(&scene).unwrap();
        let report = detector.detect(&made.frame).unwrap();
        for truth in made.truth.streaks.iter().filter(|t| t.snr > CLEAR_SNR) {
            let line = truth.segment();
            let pieces = on_track(&report, &line);
            assert_eq!(pieces.len(), 1, "seed {seed}, {truth:?}");
            let found = pieces[0];
            let along = [found.segment.start, found.segment.end].map(|p| line.along_across(p).0);
            let is_turned = along[0] > along[1];
            let errors = [found.along_68_px.start_px, found.along_68_px.end_px];
            let hidden = [Flags::END1_MASKED | Flags::END1_OFF_FRAME, Flags::END2_MASKED | Flags::END2_OFF_FRAME];
            for k in 0..2 {
                if found.flags.intersects(hidden[k]) {
                    continue;
                }
                let place = if (k == 1) == is_turned { 0.0 } else { line.length_px() };
                let off = (along[k] - place).abs();
                assert!(off < 5.0 * errors[k] + 1.0, "seed {seed}, S/N {}: {off} px, {found:?}", truth.snr);
                n_ends += 1;
            }
        }
    }
    assert!(n_ends > 20, "{n_ends}");
}
