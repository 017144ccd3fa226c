//! Frames in a stream: a folder of FITS files, watched if wanted, or a simulated camera.

mod support;

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use clap::Parser;
use skystreak::export::json;
use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, simulate};
use skystreak::{Detector, Frame, Report, Result, Role, Segment, StreamConfig, StreamSummary, io};
use support::{DetectorOptions, HeaderOptions, counted};

/// Detect streaks in a stream of frames, several at a time, and print frames/s and Mpix/s
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
struct Options {
    /// Folder of FITS files (.fits, .fit, .fts, also with .fz or .gz behind), but for those that `detect` writes beside
    /// them (.mask.fits, .level.fits, .noise.fits); without one a camera is simulated
    folder: Option<PathBuf>,
    /// Go on until no new file has come for this many seconds; one that grows once it was read is read again
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,
    /// Frames of the simulated camera
    #[arg(long, default_value_t = 16)]
    frames: usize,
    /// Side of the simulated camera's frames, px
    #[arg(long, default_value_t = 2048)]
    side: usize,
    /// Stars per million pixels of the simulated camera's frames
    #[arg(long, default_value_t = 1200.0)]
    stars: f64,
    #[command(flatten)]
    detector: DetectorOptions,
    #[command(flatten)]
    header: Option<HeaderOptions>,
    /// Frames in flight at most
    #[arg(long)]
    in_flight: Option<usize>,
    /// Memory for the frames in flight, MiB
    #[arg(long)]
    memory: Option<u64>,
    /// Also detect the simulated camera's frames one by one, in turns with the stream, and print the ratio
    #[arg(long, conflicts_with = "folder")]
    compare: bool,
    /// Leave out the stars of a frame in which these are trails
    #[arg(long)]
    targets: bool,
    /// Write JSON Lines as `detect` does, one object per frame; the totals go to the standard error
    #[arg(long)]
    json: bool,
    /// Print the totals alone
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many frames failed.
fn run(options: &Options) -> std::result::Result<u64, Box<dyn std::error::Error>> {
    let detector = Detector::new(options.detector.config())?;
    let mut config = StreamConfig::default();
    config.frames_in_flight = options.in_flight.unwrap_or(config.frames_in_flight);
    config.memory_limit_bytes = options.memory.map_or(config.memory_limit_bytes, |mib| mib << 20);
    let about = format!("device {}, {} frames in flight", detector.device_name(), config.frames_in_flight);

    match &options.folder {
        Some(folder) => {
            if folder.is_file() {
                return Err(format!("{} is a file; a stream takes its folder", folder.display()).into());
            }
            fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            if options.watch.is_none() && sizes(folder).is_empty() {
                return Err(format!("{}: no FITS files there", folder.display()).into());
            }
            options.say(&about);
            let begin = Instant::now();
            let summary = detector.stream(
                &config,
                files_of(folder, options.watch),
                |path| options.read(path),
                |path, report| options.print(&path.display().to_string(), report),
            )?;
            options.print_rates("stream", &summary, begin.elapsed());
            options.print_memory(&summary);
            Ok(summary.failed)
        }
        None if options.header.is_some() => Err("--gain and --saturation are for the files of a folder".into()),
        None => {
            options.say(&about);
            Ok(simulate_camera(&detector, &config, options)?)
        }
    }
}

/// FITS files of a folder by name, then those that appear until none has for `quiet_for`.
///
/// A file is taken when its size has not changed between two looks: cameras write files that are read half-way
/// otherwise. One that has only paused is taken again when it has grown.
fn files_of(folder: &Path, quiet_for: Option<Duration>) -> impl Iterator<Item = PathBuf> + Send {
    let folder = folder.to_owned();
    let (mut taken, mut ready) = (HashSet::new(), Vec::new());
    let mut before = sizes(&folder);
    if quiet_for.is_none() {
        ready = before.iter().map(|(path, _)| path.clone()).rev().collect();
    }
    let mut last_new = Instant::now();
    std::iter::from_fn(move || {
        loop {
            if let Some(path) = ready.pop() {
                last_new = Instant::now();
                return Some(path);
            }
            let quiet = quiet_for?;
            thread::sleep(SETTLE);
            let now = sizes(&folder);
            let settled = now.iter().filter(|file| before.contains(file));
            ready.extend(settled.filter(|file| taken.insert((*file).clone())).rev().map(|(path, _)| path.clone()));
            before = now;
            if ready.is_empty() && last_new.elapsed() > quiet {
                return None;
            }
        }
    })
}

/// Time in which a file that is being written grows.
const SETTLE: Duration = Duration::from_millis(200);

/// FITS files of a folder with their sizes, by name. A folder that cannot be read has none.
fn sizes(folder: &Path) -> Vec<(PathBuf, u64)> {
    let is_fits = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let plain = name.trim_end_matches(".gz").trim_end_matches(".fz");
        let is_output = [".mask.fits", ".level.fits", ".noise.fits"].iter().any(|end| plain.ends_with(end));
        [".fits", ".fit", ".fts"].iter().any(|end| plain.ends_with(end)) && !is_output
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(PathBuf, u64)> = entries
        .filter(|entry| is_fits(&entry.path()))
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect();
    files.sort();
    files
}

/// A few simulated frames in turn, as a camera's ring buffer holds them. Returns how many failed.
fn simulate_camera(detector: &Detector, config: &StreamConfig, options: &Options) -> Result<u64> {
    let scene = |seed| SceneConfig {
        seed,
        width: options.side,
        height: options.side,
        stars_per_mpix: options.stars,
        streaks: vec![StreakSpec {
            segment: Segment::from_coordinates(110.3, 120.6, 220.1, 160.4),
            brightness: Brightness::Snr(25.0),
        }],
        ..SceneConfig::default()
    };
    let ring: Vec<Frame<'static>> =
        (1..=4).map(|seed| Ok(simulate(&scene(seed))?.frame)).collect::<Result<Vec<_>>>()?;
    // The first frame makes the tables of its shape.
    detector.detect(&ring[0])?;
    let slots = (0..options.frames).map(|i| &ring[i % ring.len()]);

    let begin = Instant::now();
    let mut streamed = Vec::new();
    let summary = detector.stream(
        config,
        slots.clone(),
        |frame| Ok(frame.as_borrowed()),
        |_, report| {
            let name = format!("frame {}", streamed.len());
            streamed.extend(report.as_ref().map(|r| r.detections.clone()).ok());
            options.print(&name, report);
        },
    )?;
    let in_stream = begin.elapsed();
    options.print_rates("stream", &summary, in_stream);
    options.print_memory(&summary);

    if options.compare {
        let begin = Instant::now();
        let single: Vec<_> = slots.map(|frame| Ok(detector.detect(frame)?.detections)).collect::<Result<_>>()?;
        let one_by_one = begin.elapsed();
        options.print_rates("one by one", &summary, one_by_one);
        assert!(streamed == single, "a stream finds what single frames hold");
        let times = one_by_one.as_secs_f64() / in_stream.as_secs_f64();
        options.say(&format!("the stream is {times:.2} times as fast"));
    }
    Ok(summary.failed)
}

impl Options {
    fn read(&self, path: &Path) -> Result<Frame<'static>> {
        let frame = io::fits::read_frame(path)?;
        match &self.header {
            Some(header) => header.fill_in(frame),
            None => Ok(frame),
        }
    }

    fn print(&self, name: &str, report: Result<Report>) {
        match report.map(|report| self.what_is_asked(report)) {
            Ok(report) if self.json => write_out(&(json::report_line(name, &report, json::Include::default()) + "\n")),
            Ok(_) if self.quiet => {}
            Ok(report) => {
                let n_stars = report.detections.iter().filter(|d| d.role == Role::Star).count();
                let stars = if n_stars > 0 { format!(" ({n_stars} of them stars)") } else { String::new() };
                write_out(&format!(
                    "{name}: {}{stars}, {:.0} ms\n",
                    counted(report.detections.len(), "detection"),
                    report.total_ms
                ));
            }
            Err(error) => {
                let error = error.to_string();
                let known = if error.contains(name) { String::new() } else { format!("{name}: ") };
                eprintln!("error: {known}{error}");
            }
        }
    }

    fn what_is_asked(&self, mut report: Report) -> Report {
        if self.targets {
            report.detections.retain(|d| d.role == Role::Target);
        }
        report
    }

    fn print_rates(&self, what: &str, summary: &StreamSummary, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.say(&format!(
            "{what}: {} ({} failed) in {seconds:.2} s: {:.2} frames/s, {:.1} Mpix/s",
            counted(summary.frames as usize, "frame"),
            summary.failed,
            summary.frames as f64 / seconds,
            summary.pixels as f64 / 1e6 / seconds,
        ));
    }

    fn print_memory(&self, summary: &StreamSummary) {
        let at_once = counted(summary.most_in_flight, "frame");
        self.say(&format!("never more than {at_once} computed at once; {} MiB at most", summary.peak_bytes >> 20));
    }

    /// Says something that is no result.
    fn say(&self, text: &str) {
        if self.json { eprintln!("{text}") } else { write_out(&format!("{text}\n")) }
    }
}

/// To the standard output; ends well where whoever reads it has seen enough.
fn write_out(text: &str) {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("the standard output cannot be written: {error}");
            std::process::exit(1);
        }
    }
}
