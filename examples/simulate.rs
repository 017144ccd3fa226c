//! Simulates frames with known contents and writes them as FITS, the truth beside each as JSON.
//!
//!     cargo run --release --example simulate -- out --kind sidereal --frames 4 --n 6 --snr 8:30
//!     cargo run --release --example simulate -- out --scene testdata/crossing.scene.json

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use skystreak::io::fits::write_frame;
use skystreak::simulate::{RandomStreaks, SceneConfig, simulate};

/// Simulates frames with known contents: `<out>/<name>.fits` and `<out>/<name>.truth.json`.
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
struct Options {
    /// Folder to write to; made when it is not there.
    out: PathBuf,
    /// A scene in JSON, in place of the options that describe one; see `SceneConfig` and `testdata/*.scene.json`.
    #[arg(long, conflicts_with_all = ["kind", "width", "height", "sigma", "sky", "stars", "trail_length",
        "trail_angle_deg", "n", "length", "points", "snr"])]
    scene: Option<PathBuf>,
    /// Name of the files; where there are several each gets a number. Default: the scene's or the kind's.
    #[arg(long)]
    name: Option<String>,
    /// Number of frames; each has the seed of the one before plus one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Seed of the first frame. Default: the scene's, or 1.
    #[arg(long)]
    seed: Option<u64>,
    /// What the telescope follows.
    #[arg(long, value_enum, default_value_t = Kind::Sidereal)]
    kind: Kind,
    /// Pixels along a row.
    #[arg(long, default_value_t = 1024)]
    width: usize,
    /// Number of rows.
    #[arg(long, default_value_t = 1024)]
    height: usize,
    /// Width of the Gaussian PSF, px.
    #[arg(long, default_value_t = 1.5)]
    sigma: f64,
    /// Sky, electrons per pixel.
    #[arg(long, default_value_t = 400.0)]
    sky: f64,
    /// Stars per million pixels. Default: 1200, in blank frames none.
    #[arg(long)]
    stars: Option<f64>,
    /// With --kind rate: length of the star trails, px. Default: 30.
    #[arg(long)]
    trail_length: Option<f64>,
    /// With --kind rate: angle of the star trails, degrees from +x towards +y. Default: 17.
    #[arg(long)]
    trail_angle_deg: Option<f64>,
    /// Number of streaks. Default: 4, with --points none.
    #[arg(short, long)]
    n: Option<usize>,
    /// Lengths of the streaks, px: `from:to` or one value.
    #[arg(long, default_value = "20:200")]
    length: Interval,
    /// Number of point targets.
    #[arg(long, default_value_t = 0)]
    points: usize,
    /// Matched-filter S/N of streaks and point targets: `from:to` or one value.
    #[arg(long, default_value = "8:40")]
    snr: Interval,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Stars are points.
    Sidereal,
    /// Stars are streaks of one length and angle.
    Rate,
    /// Level sky, no stars, no defects.
    Blank,
}

#[derive(Clone, Copy)]
struct Interval([f64; 2]);

impl FromStr for Interval {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once(':').unwrap_or((text, text));
        Ok(Self([from.parse()?, to.parse()?]))
    }
}

impl Options {
    /// The scene, and the name it goes by.
    fn scene(&self) -> Result<(SceneConfig, String), Box<dyn Error>> {
        if let Some(path) = &self.scene {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.trim_end_matches(".json").trim_end_matches(".scene").to_owned();
            return Ok((read_scene(path).map_err(|e| format!("{}: {e}", path.display()))?, name));
        }
        let trail = (self.trail_length, self.trail_angle_deg);
        let (scene, name) = match self.kind {
            Kind::Rate => {
                let (length_px, angle_deg) = (trail.0.unwrap_or(30.0), trail.1.unwrap_or(17.0));
                if length_px.is_nan() || length_px <= 0.0 {
                    return Err(format!("star trails of {length_px} px: the length must be positive").into());
                }
                (SceneConfig::rate_tracked(length_px, angle_deg.to_radians()), "rate")
            }
            _ if trail != (None, None) => {
                return Err("--trail-length and --trail-angle-deg go with --kind rate".into());
            }
            Kind::Sidereal => (SceneConfig::default(), "sidereal"),
            Kind::Blank => (SceneConfig::blank(), "blank"),
        };
        let n = self.n.unwrap_or(if self.points == 0 { 4 } else { 0 });
        let streaks = RandomStreaks { n, snr: self.snr.0, length_px: self.length.0, ..Default::default() };
        let points = RandomStreaks { n: self.points, length_px: [0.0, 0.0], ..streaks };
        let scene = SceneConfig {
            width: self.width,
            height: self.height,
            psf_sigma_px: self.sigma,
            sky_e: self.sky,
            stars_per_mpix: self.stars.unwrap_or(scene.stars_per_mpix),
            random_streaks: vec![streaks, points],
            ..scene
        };
        Ok((scene, name.to_owned()))
    }
}

fn read_scene(path: &Path) -> Result<SceneConfig, Box<dyn Error>> {
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (mut scene, default_name) = options.scene()?;
    let name = options.name.as_ref().unwrap_or(&default_name);
    let first_seed = options.seed.unwrap_or(scene.seed);
    fs::create_dir_all(&options.out)
        .map_err(|e| format!("the folder {} cannot be made: {e}", options.out.display()))?;
    for k in 0..options.frames {
        scene.seed = first_seed.checked_add(k).ok_or("the seeds of so many frames are too large")?;
        // A frame every ten seconds.
        scene.start_utc = format!("2026-01-01T{:02}:{:02}:{:02}.000", k / 360 % 24, k / 6 % 60, k % 6 * 10);
        let result = simulate(&scene)?;
        let stem = if options.frames == 1 { name.clone() } else { format!("{name}_{k:04}") };
        write_frame(&options.out.join(format!("{stem}.fits")), &result.frame)?;
        let truth = serde_json::to_string_pretty(&result.truth)? + "\n";
        fs::write(options.out.join(format!("{stem}.truth.json")), truth)?;
        println!("{stem}: {} targets, {} stars", result.truth.streaks.len(), result.truth.stars.len());
    }
    Ok(())
}
