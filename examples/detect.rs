//! Finds the streaks in FITS files and writes them as text, pictures, regions, masks or tables.
//!
//!     cargo run --release --example detect -- frames/*.fits --overlay pictures

mod support;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;
use skystreak::export::{csv, json, mask, overlay, regions};
use skystreak::io::fits::{self, HduChoice, ReadOptions};
use skystreak::{
    Detection, Detector, FixedPattern, Flags, Frame, FrameFlag, Kind, Point, Reference, Report, Role, Sky, TrackingMode,
};
use support::{DetectorOptions, HeaderOptions, counted};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// Find streaks in FITS frames.
///
/// In the text ± is the half-width of the 68 % interval: of the first and the second end along the track, of a length,
/// an angle, a flux, and a point's x and y. Flags, and ends of large errors, are explained in docs/conventions.md.
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
struct Options {
    /// FITS files: plain, gzipped or tile-compressed.
    #[arg(required_unless_present = "list_devices")]
    frames: Vec<PathBuf>,
    /// Write JSON Lines, one object per frame.
    #[arg(long)]
    json: bool,
    /// Leave out the stars of a frame in which these are trails: targets alone are listed, drawn and masked. A target within
    /// some degrees of the stars' direction may have been taken for stars (docs/algorithm.md, "Stars that trail").
    #[arg(long)]
    targets: bool,
    /// Also list candidates that were not believed, and why.
    #[arg(long)]
    rejected: bool,
    /// With --json: also write the light curve of every streak.
    #[arg(long, requires = "json")]
    light_curves: bool,
    /// Write a PNG of each frame, with its detections outlined, to this folder: NAME.png.
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Write DS9 regions of each frame to this folder: NAME.reg.
    #[arg(long, value_name = "DIR")]
    regions: Option<PathBuf>,
    /// Write a FITS mask (1 = affected) of each frame to this folder: NAME.mask.fits.
    #[arg(long, value_name = "DIR")]
    mask: Option<PathBuf>,
    /// Write FITS images of each frame's sky to this folder: NAME.level.fits, NAME.noise.fits.
    #[arg(long, value_name = "DIR")]
    sky: Option<PathBuf>,
    /// Write one table of all detections.
    #[arg(long, value_name = "FILE", value_parser = table_path)]
    csv: Option<PathBuf>,
    #[command(flatten)]
    detector: DetectorOptions,
    /// List the devices and stop.
    #[arg(long)]
    list_devices: bool,
    #[command(flatten)]
    header: HeaderOptions,
    /// FITS files of the same pointing: their median, which stands still, is taken off every frame. After the frames.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    reference: Vec<PathBuf>,
    /// FITS files of different pointing, three at least: what they share is the detector's, and left out. After
    /// the frames.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    fixed_pattern: Vec<PathBuf>,
    /// HDU to read, by number from 0 or by name; the first image when not given.
    #[arg(long)]
    hdu: Option<HduChoice>,
    /// Plane of a cube to read, from 0.
    #[arg(long, value_name = "N")]
    plane: Option<usize>,
}

const FITS_ENDINGS: [&str; 3] = [".fits", ".fit", ".fts"];

/// A table is not to replace a frame, as in `--csv *.fits`.
fn table_path(text: &str) -> Result<PathBuf, String> {
    let name = text.to_lowercase();
    let plain = name.trim_end_matches(".gz").trim_end_matches(".fz");
    let is_fits = FITS_ENDINGS.iter().any(|ending| plain.ends_with(ending));
    if is_fits { Err("this is the name of a FITS file".to_owned()) } else { Ok(text.into()) }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(n_failed) => {
            eprintln!("{} failed", counted(n_failed, "frame"));
            ExitCode::FAILURE
        }
        // Whoever reads the output has seen enough of it.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Works through the frames; a bad one does not stop the others. Gives the number of those that failed.
fn run(options: &Options) -> AnyResult<usize> {
    if options.list_devices {
        list_devices();
        return Ok(0);
    }
    let detector = Detector::new(options.detector.config())?;
    let standing = Standing::read(options)?;
    let mut outputs = Outputs::create(options)?;
    let progress = progress_bar(options.frames.len());
    let (mut n_failed, mut is_read) = (0, true);
    for path in &options.frames {
        match process(path, options, &detector, &standing, &mut outputs) {
            Ok(text) if is_read => match progress.suspend(|| std::io::stdout().lock().write_all(text.as_bytes())) {
                // Whoever reads the text has seen enough of it, but the files that were asked for are not complete.
                Err(error) if error.kind() == ErrorKind::BrokenPipe && outputs.are_asked_for() => is_read = false,
                written => written?,
            },
            Ok(_) => {}
            Err(error) => {
                n_failed += 1;
                let (path, error) = (path.display().to_string(), error.to_string());
                let known = if error.contains(&path) { String::new() } else { format!("{path}: ") };
                progress.suspend(|| eprintln!("error: {known}{error}"));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    outputs.finish()?;
    if let Some(table) = options.csv.as_ref().filter(|_| is_read && !options.json) {
        writeln!(std::io::stdout().lock(), "wrote {}", table.display())?;
    }
    Ok(n_failed)
}

/// What stands still, in the sky and on the detector.
struct Standing {
    reference: Option<Reference>,
    pattern: Option<FixedPattern>,
}

impl Standing {
    fn read(options: &Options) -> AnyResult<Self> {
        let frames = |paths: &[PathBuf]| -> AnyResult<Vec<Frame<'static>>> {
            paths.iter().map(|path| read(path, options)).collect()
        };
        let reference = (!options.reference.is_empty())
            .then(|| -> AnyResult<_> { Ok(Reference::median(&frames(&options.reference)?)?) });
        let pattern = (!options.fixed_pattern.is_empty())
            .then(|| -> AnyResult<_> { Ok(FixedPattern::of(&frames(&options.fixed_pattern)?)?) });
        Ok(Self { reference: reference.transpose()?, pattern: pattern.transpose()? })
    }
}

fn read(path: &Path, options: &Options) -> AnyResult<Frame<'static>> {
    if path.is_dir() {
        let files = path.join("*.fits");
        return Err(format!("{} is a folder; its frames are {}", path.display(), files.display()).into());
    }
    let choice = ReadOptions { hdu: options.hdu.clone(), plane: options.plane };
    Ok(options.header.fill_in(fits::read_frame_with(path, &choice)?)?)
}

/// Gives the text for one frame, and writes the files asked for.
fn process(
    path: &Path,
    options: &Options,
    detector: &Detector,
    standing: &Standing,
    outputs: &mut Outputs<'_>,
) -> AnyResult<String> {
    let mut frame = read(path, options)?;
    if let Some(pattern) = &standing.pattern {
        frame = pattern.left_out_of(frame)?;
    }
    let mut report = match &standing.reference {
        Some(reference) => detector.detect_with(&frame, reference)?,
        None => detector.detect(&frame)?,
    };
    let n_all = report.detections.len();
    if options.targets {
        report.detections.retain(|d| d.role == Role::Target);
    }
    let n_left_out = n_all - report.detections.len();
    let sky = if options.sky.is_some() { detector.sky(&frame)? } else { None };
    let written = outputs.write(path, &frame, &report, sky)?;
    let name = path.display().to_string();
    Ok(if options.json {
        json::report_line(
            &name,
            &report,
            json::Include { rejected: options.rejected, light_curves: options.light_curves },
        ) + "\n"
    } else {
        let files: String = written.iter().map(|file| format!("  wrote {}\n", file.display())).collect();
        describe(&name, &report, n_left_out, options.rejected) + &files
    })
}

fn list_devices() {
    for device in skystreak::devices() {
        let note = if device.is_software { ", software" } else { "" };
        println!("{} ({}{note})", device.name, device.backend);
    }
}

/// Shown only where somebody looks at it and there is something to wait for.
fn progress_bar(n_frames: usize) -> ProgressBar {
    if n_frames > 1 && std::io::stderr().is_terminal() {
        ProgressBar::new(n_frames as u64)
    } else {
        ProgressBar::hidden()
    }
}

/// A line for the frame, and one for each detection, those of stars last, of which some have been left out.
fn describe(name: &str, report: &Report, n_left_out: usize, with_rejected: bool) -> String {
    let detections = counted(report.detections.len(), "detection");
    let (of_stars, targets): (Vec<&Detection>, Vec<&Detection>) =
        report.detections.iter().partition(|d| d.role == Role::Star);
    let stars = match (of_stars.len(), n_left_out) {
        (0, 0) => String::new(),
        (0, n) => format!("{n} of stars left out, "),
        (n, _) => format!("{n} of stars, "),
    };
    let points = report.points_threshold_snr.map(|snr| format!(", of points {snr:.1}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{name}: {detections} ({stars}{} rejected) in {:.1} ms on {} ({}, PSF sigma {:.2} px, threshold S/N {:.1}{points})",
        report.rejected.len(),
        report.total_ms,
        report.device,
        describe_tracking(&report.tracking),
        report.psf_sigma_px,
        report.threshold_snr
    )];
    lines.extend(report.flags.iter().map(|flag| format!("  note: {}", describe_flag(*flag))));
    lines.extend(targets.into_iter().chain(of_stars).map(describe_detection));
    if with_rejected {
        lines.extend(report.rejected.iter().map(|r| {
            let (a, b) = (r.segment.start, r.segment.end);
            let reason = r.reason.name();
            format!("  rejected ({:.1}, {:.1}) to ({:.1}, {:.1}), S/N {:.1}: {reason}", a.x, a.y, b.x, b.y, r.snr)
        }));
    }
    lines.join("\n") + "\n"
}

fn describe_tracking(tracking: &TrackingMode) -> String {
    match tracking {
        TrackingMode::Rate { star_length_px, star_angle_rad, .. } => {
            format!("rate tracking, stars trail {star_length_px:.1} px at {:.2} deg", star_angle_rad.to_degrees())
        }
        _ => format!("{} tracking", tracking.name()),
    }
}

fn describe_flag(flag: FrameFlag) -> String {
    let meaning = match flag {
        FrameFlag::NoUsablePixels => "all pixels are masked, saturated or missing",
        FrameFlag::NoNoise => "all usable pixels are equal",
        FrameFlag::TooSmall => "both sides are shorter than the shortest streak",
        FrameFlag::PsfAssumed => "too few stars to measure the PSF width; --sigma gives it",
        FrameFlag::StarVectorUnseen => {
            "too few stars have the vector given with --tracking: most of what is listed may be stars; try --tracking auto"
        }
        FrameFlag::EmptyAreas => "areas of one constant value were left out",
        _ => return flag.name().to_owned(),
    };
    format!("{} ({meaning})", flag.name())
}

/// Errors are those of 68 %, of ends along the track. An end beyond the frame may be anywhere there.
fn describe_detection(d: &Detection) -> String {
    let along = d.along_68_px;
    let end = |p: Point, err_px: f64, beyond: Flags| {
        let and = if d.flags.contains(beyond) { "and beyond".to_owned() } else { format!("± {err_px:.2}") };
        format!("({:.2}, {:.2}) {and}", p.x, p.y)
    };
    let place = match d.kind {
        Kind::Streak => {
            let is_whole = !d.flags.intersects(Flags::END1_OFF_FRAME | Flags::END2_OFF_FRAME);
            let error = if is_whole { format!("± {:.2} px", along.length_px) } else { "px and more".to_owned() };
            format!(
                "streak {} to {}, {:.2} {error} at {:.3} ± {:.3} deg",
                end(d.segment.start, along.start_px, Flags::END1_OFF_FRAME),
                end(d.segment.end, along.end_px, Flags::END2_OFF_FRAME),
                d.length_px(),
                d.angle_rad().to_degrees(),
                d.angle_err_rad().to_degrees()
            )
        }
        Kind::Point => {
            let (place, [x_err, y_err]) = (d.segment.start, [0, 1].map(|k| d.covariance_px2[k][k].sqrt()));
            format!("point ({:.2} ± {x_err:.2}, {:.2} ± {y_err:.2})", place.x, place.y)
        }
    };
    let star = if d.role == Role::Star { "star's " } else { "" };
    let flags: String = d.flags.names().map(|name| format!(", {name}")).collect();
    let (flux, error, unit) = (d.flux, d.flux_err, d.flux_unit.name());
    format!("  {star}{place}, S/N {:.1}, flux {flux:.0} ± {error:.0} {unit}{flags}", d.snr)
}

/// The files asked for besides the text.
struct Outputs<'o> {
    options: &'o Options,
    table: Option<BufWriter<File>>,
    /// Names in use, in lower case: some file systems do not tell them apart.
    taken: HashSet<String>,
}

fn make_folder(folder: &Path) -> AnyResult<()> {
    Ok(fs::create_dir_all(folder).map_err(|e| format!("the folder {} cannot be made: {e}", folder.display()))?)
}

impl<'o> Outputs<'o> {
    fn create(options: &'o Options) -> AnyResult<Self> {
        let folders = [&options.overlay, &options.regions, &options.mask, &options.sky];
        for folder in folders.into_iter().flatten() {
            make_folder(folder)?;
        }
        let mut table = None;
        if let Some(path) = &options.csv {
            let read = [&options.frames, &options.reference, &options.fixed_pattern];
            let is_table = |frame: &PathBuf| fs::canonicalize(frame).ok() == fs::canonicalize(path).ok();
            if path.exists() && read.into_iter().flatten().any(is_table) {
                return Err(format!("{} is one of the frames: the table would replace it", path.display()).into());
            }
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            let file = File::create(path).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
            csv::write_header(table.insert(BufWriter::new(file)))?;
        }
        Ok(Self { options, table, taken: HashSet::new() })
    }

    fn are_asked_for(&self) -> bool {
        let Options { overlay, regions, mask, sky, .. } = self.options;
        self.table.is_some() || [overlay, regions, mask, sky].into_iter().any(Option::is_some)
    }

    /// Gives the files that hold one frame alone.
    fn write(&mut self, path: &Path, frame: &Frame<'_>, report: &Report, sky: Option<Sky>) -> AnyResult<Vec<PathBuf>> {
        let stem = self.unused_stem(path);
        let mut written = Vec::new();
        let mut in_folder = |folder: &Path, ending: &str| {
            written.push(folder.join(format!("{stem}.{ending}")));
            written[written.len() - 1].clone()
        };
        if let Some(folder) = &self.options.overlay {
            overlay::save_png(&in_folder(folder, "png"), frame, report)?;
        }
        if let Some(folder) = &self.options.regions {
            let file = in_folder(folder, "reg");
            fs::write(&file, regions::ds9(report)).map_err(|e| format!("{} cannot be written: {e}", file.display()))?;
        }
        if let Some(folder) = &self.options.mask {
            let affected = mask::affected(report, mask::DEFAULT_WIDTH_IN_SIGMAS);
            fits::write_mask(&in_folder(folder, "mask.fits"), report.width, report.height, &affected)?;
        }
        if let (Some(folder), Some(sky)) = (&self.options.sky, sky) {
            for (ending, map) in [("level.fits", sky.level), ("noise.fits", sky.noise)] {
                let map = Frame::new(map, frame.width(), frame.height())?;
                fits::write_frame(&in_folder(folder, ending), &map)?;
            }
        }
        if let Some(table) = &mut self.table {
            csv::write_rows(table, &path.display().to_string(), report)?;
        }
        Ok(written)
    }

    /// The file's name without its endings; frames of one name from different folders get a number.
    fn unused_stem(&mut self, path: &Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = [".gz", ".fz"]
            .iter()
            .chain(&FITS_ENDINGS)
            .fold(name.as_ref(), |stem, ending| stem.strip_suffix(ending).filter(|s| !s.is_empty()).unwrap_or(stem));
        let numbered = (2..).map(|n| format!("{stem}-{n}"));
        std::iter::once(stem.to_owned())
            .chain(numbered)
            .find(|candidate| self.taken.insert(candidate.to_lowercase()))
            .unwrap_or_default()
    }

    fn finish(self) -> AnyResult<()> {
        self.table.map_or(Ok(()), |mut table| Ok(table.flush()?))
    }
}
