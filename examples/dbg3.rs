use skystreak::{
    simulate::{self, SceneConfig},
    *,
};
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let vign: f64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let d = Detector::new(DetectorConfig {
        device: Device::Cpu,
        psf_sigma_px: Some(1.5),
        false_alarms_per_frame: 0.1,
        ..DetectorConfig::default()
    })
    .unwrap();
    let mut total = 0;
    let mut hist = vec![];
    for seed in 0..30 {
        let c = SceneConfig { width: n, height: n, seed, vignetting: vign, gradient: vign, ..SceneConfig::blank() };
        let s = simulate::simulate(&c).unwrap();
        let r = d.detect(&s.frame).unwrap();
        total += r.detections.len();
        for x in &r.detections {
            hist.push(format!("{:.1}@{:.0}", x.snr, x.length_px()));
        }
    }
    println!("{n} {vign}: {} per frame (asked 0.1) {hist:?}", total as f64 / 30.0);
}
