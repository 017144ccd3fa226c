use skystreak::{simulate, *};
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let fa: f64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let frames: u64 = std::env::args().nth(3).unwrap().parse().unwrap();
    let d = Detector::new(DetectorConfig {
        device: Device::Cpu,
        psf_sigma_px: Some(1.5),
        false_alarms_per_frame: fa,
        ..DetectorConfig::default()
    })
    .unwrap();
    let mut total = 0;
    for seed in 0..frames {
        let p = simulate::gaussian_frame(n, n, seed, 1.0);
        let r = d.detect(&Frame::new(&p, n, n).unwrap()).unwrap();
        total += r.detections.len();
        if frames < 4 {
            println!("{:?} {:.0} ms", r.stages_ms, r.total_ms);
            for x in &r.detections {
                println!("  {:?} {:.2} {:.1}", x.segment, x.snr, x.length_px());
            }
            println!("rej {:?}", r.rejected);
        }
    }
    println!("{} per frame (asked {fa})", total as f64 / frames as f64);
}
