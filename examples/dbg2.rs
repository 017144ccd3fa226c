use skystreak::{simulate, *};
fn main() {
    let n: usize = 320;
    let flux: f64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let d = Detector::new(DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() })
        .unwrap();
    for seed in 0..3 {
        let mut p = simulate::gaussian_frame(n, n, seed, 1.0);
        simulate::add_streak(&mut p, n, &Segment::from_coordinates(40.3, 60.8, 160.7, 150.2), 1.5, flux);
        if std::env::args().len() > 2 {
            simulate::add_streak(&mut p, n, &Segment::from_coordinates(60.6, 160.4, 140.9, 50.1), 1.5, flux);
        }
        let r = d.detect(&Frame::new(&p, n, n).unwrap()).unwrap();
        println!("{:?} {:.0} ms", r.stages_ms, r.total_ms);
        for x in &r.detections {
            println!("  {:?} {:.2} {:.1} {:?}", x.segment, x.snr, x.length_px(), x.flags.names().collect::<Vec<_>>());
        }
        println!("rej {:?}", r.rejected);
    }
}
