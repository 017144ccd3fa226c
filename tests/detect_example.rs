//! The `detect` example as people run it.
//!
//! `cargo test` builds it beside the tests; where it is absent, as after `cargo test --test detect_example` alone, the
//! tests say that they skip.
#![cfg(feature = "fits")]
#![expect(unreachable_pub, reason = "the helper module is part of this program")]
#![expect(dead_code, reason = "the helper module serves other programs too")]

#[path = "support/fits_bytes.rs"]
mod fits_bytes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fits_bytes::TempDir;
use serde_json::Value;

const FRAME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sidereal_blank.fits");

/// The names every line has, and those of every detection in it (docs/conventions.md).
const OF_LINE: [&str; 9] =
    ["frame", "width", "height", "device", "tracking", "psf_sigma_px", "threshold_snr", "elapsed_ms", "detections"];
const OF_DETECTION: [&str; 19] = [
    "id",
    "kind",
    "role",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "covariance_px2",
    "length_px",
    "angle_rad",
    "sigma_px",
    "flux",
    "flux_err",
    "flux_unit",
    "snr",
    "chi2_reduced",
    "flags",
];
const OF_REJECTED: [&str; 6] = ["x1", "y1", "x2", "y2", "snr", "reason"];

/// Runs `detect` on the CPU; none, with a message, where it was not built.
fn detect(arguments: &[&str]) -> Option<Output> {
    run("detect", arguments)
}

fn run(example: &str, arguments: &[&str]) -> Option<Output> {
    Some(command(example, arguments)?.output().unwrap())
}

fn command(example: &str, arguments: &[&str]) -> Option<Command> {
    // target/<profile>/deps/<this test> and target/<profile>/examples/detect.
    let profile = std::env::current_exe().unwrap().parent().and_then(Path::parent).map(PathBuf::from).unwrap();
    let program = profile.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        eprintln!("skipped: {} was not built", program.display());
        return None;
    }
    let device = if arguments.contains(&"--device") { &[][..] } else { &["--device", "cpu"] };
    let mut command = Command::new(program);
    command.args(device).args(arguments);
    Some(command)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The line of a frame has the names it promises; more may come.
fn check_line(line: &Value) {
    let has = |object: &Value, names: &[&str]| {
        let keys: BTreeSet<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        let missing: Vec<_> = names.iter().filter(|name| !keys.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?} missing in {object}");
    };
    has(line, &OF_LINE);
    has(&line["elapsed_ms"], &["total"]);
    for d in line["detections"].as_array().unwrap() {
        has(d, &OF_DETECTION);
        assert!(["streak", "point"].contains(&d["kind"].as_str().unwrap()));
        assert!(["target", "star"].contains(&d["role"].as_str().unwrap()));
        assert!(["electron", "adu"].contains(&d["flux_unit"].as_str().unwrap()));
        let covariance = d["covariance_px2"].as_array().unwrap();
        assert!(covariance.len() == 4 && covariance.iter().all(|row| row.as_array().unwrap().len() == 4));
        assert!(d["flags"].as_array().unwrap().iter().all(Value::is_string));
    }
    for r in line.get("rejected").and_then(Value::as_array).into_iter().flatten() {
        has(r, &OF_REJECTED);
    }
}

#[test]
fn an_end_that_was_not_seen_has_no_error_in_the_text() {
    let Some(output) = detect(&[FRAME]) else { return };
    let streaks: Vec<&str> = text(&output.stdout).lines().filter(|line| line.starts_with("  streak ")).collect();
    let (cut, whole): (Vec<&str>, Vec<&str>) = streaks.iter().partition(|line| line.contains("off_frame"));
    assert!(cut.len() == 1 && !whole.is_empty(), "{streaks:?}");
    let errors = |line: &str| line.matches('±').count();
    assert!(cut[0].contains(") and beyond, ") && cut[0].contains(" px and more at "), "{}", cut[0]);
    // Of one end, the angle and the flux; else of both ends and the length too.
    assert_eq!(errors(cut[0]), 3, "{}", cut[0]);
    assert!(whole.iter().all(|line| errors(line) == 5 && !line.contains("and ")), "{whole:?}");
}

#[test]
fn a_bad_file_does_not_stop_the_others() {
    let dir = TempDir::new();
    let bad = dir.file("bad.fits", b"These are notes about the night.\n");
    let bad = bad.to_str().unwrap();
    let Some(output) = detect(&["--json", FRAME, bad, FRAME]) else { return };
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains(bad) && !errors.contains("sidereal_blank"), "{errors}");
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        check_line(line);
        assert_eq!((line["frame"].as_str(), line["width"].as_u64()), (Some(FRAME), Some(384)));
        assert!(!line["detections"].as_array().unwrap().is_empty() && line.get("rejected").is_none());
    }
    assert_eq!(lines[0]["detections"], lines[1]["detections"]);
}

#[test]
fn good_files_give_success() {
    let stars = FRAME.replace("blank", "stars");
    let Some(output) = detect(&["--json", "--rejected", &stars]) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let line: Value = serde_json::from_str(text(&output.stdout).trim_end()).unwrap();
    check_line(&line);
    assert!(line["rejected"].is_array());

    let Some(output) = detect(&[FRAME]) else { return };
    let lines = text(&output.stdout);
    assert!(output.status.success() && lines.contains(FRAME) && lines.contains("streak ("), "{lines}");
}

#[test]
fn stars_are_left_out_where_targets_are_asked_for() {
    let trails = FRAME.replace("sidereal_blank", "rate_trails");
    let roles = |arguments: &[&str]| -> Option<Vec<String>> {
        let output = detect(&[arguments, &["--json", &trails]].concat())?;
        let line: Value = serde_json::from_str(text(&output.stdout).trim_end()).unwrap();
        let detections = line["detections"].as_array().unwrap();
        Some(detections.iter().map(|d| d["role"].as_str().unwrap().to_owned()).collect())
    };
    let (Some(mut all), Some(targets)) = (roles(&[]), roles(&["--targets"])) else { return };
    assert!(all.iter().any(|role| role == "star"));
    all.retain(|role| role == "target");
    assert!(!targets.is_empty() && targets == all);

    let dir = TempDir::new();
    dir.file("trails.fits", &std::fs::read(&trails).unwrap());
    let Some(output) = run("stream", &["--json", "--targets", dir.path().to_str().unwrap()]) else { return };
    let line: Value = serde_json::from_str(text(&output.stdout).trim_end()).unwrap();
    let of_stream: Vec<&str> =
        line["detections"].as_array().unwrap().iter().map(|d| d["role"].as_str().unwrap()).collect();
    assert_eq!(of_stream, targets);
}

#[test]
fn the_text_says_what_a_point_needed_where_stars_are_trails() {
    let Some(output) = detect(&[&FRAME.replace("sidereal_blank", "rate_trails")]) else { return };
    let first = text(&output.stdout).lines().next().unwrap();
    let threshold_after = |words: &str| -> f64 {
        let (_, rest) = first.split_once(words).unwrap_or_else(|| panic!("{first}"));
        rest.split([',', ')']).next().unwrap().parse().unwrap()
    };
    let [streaks, points] = ["threshold S/N ", ", of points "].map(threshold_after);
    assert!(streaks > 5.0 && points > 4.5 && points < streaks, "{first}");
    let Some(output) = detect(&[FRAME]) else { return };
    assert!(!text(&output.stdout).contains("of points"));
}

#[test]
fn a_stream_writes_the_lines_of_detect() {
    let dir = TempDir::new();
    for name in ["a.fits", "b.fit", "b.mask.fits", "notes.txt"] {
        dir.file(name, &std::fs::read(FRAME).unwrap());
    }
    let folder = dir.path().to_str().unwrap();
    let Some(output) = run("stream", &["--json", "--tracking", "sidereal", folder]) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "frames, and not what was made of them");
    let Some(single) = detect(&["--json", "--tracking", "sidereal", FRAME]) else { return };
    let single: Value = serde_json::from_str(text(&single.stdout).trim_end()).unwrap();
    for line in &lines {
        check_line(line);
        assert_eq!(line["detections"], single["detections"]);
    }

    let empty = TempDir::new();
    let Some(output) = run("stream", &[empty.path().to_str().unwrap()]) else { return };
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("no FITS files"));
}

#[test]
fn files_asked_for_are_written() {
    let dir = TempDir::new();
    let place = |name: &str| dir.path().join(name).display().to_string();
    let [overlay, regions, mask, csv] = ["a/png", "b", "c", "d/all.csv"].map(place);
    let options = ["--overlay", &overlay, "--regions", &regions, "--mask", &mask, "--csv", &csv, FRAME, FRAME];
    let Some(output) = detect(&options) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let names: Vec<&str> =
        text(&output.stdout).lines().filter_map(|line| line.trim_start().strip_prefix("wrote ")).collect();
    assert_eq!(names.len(), 7);
    assert!(names.iter().all(|name| Path::new(name).exists()), "{names:?}");
    // The second frame of one name does not replace the first.
    for stem in ["sidereal_blank", "sidereal_blank-2"] {
        let read = |name: String| std::fs::read(dir.path().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(read(format!("a/png/{stem}.png")).starts_with(b"\x89PNG"));
        assert!(text(&read(format!("b/{stem}.reg"))).contains("image"));
        assert!(read(format!("c/{stem}.mask.fits")).starts_with(b"SIMPLE"));
    }
    let table = std::fs::read_to_string(&csv).unwrap();
    let n_columns = table.lines().next().unwrap().split(',').count();
    assert!(table.lines().count() >= 3 && n_columns >= OF_DETECTION.len() - 1, "{table}");
}

#[test]
fn files_asked_for_are_written_though_nobody_reads_the_text() {
    let dir = TempDir::new();
    let [overlay, csv] = ["png", "all.csv"].map(|name| dir.path().join(name).display().to_string());
    let Some(mut command) = command("detect", &["--overlay", &overlay, "--csv", &csv, FRAME, FRAME, FRAME]) else {
        return;
    };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(overlay).unwrap().count(), 3);
    let table = std::fs::read_to_string(csv).unwrap();
    assert!(table.ends_with('\n') && table.matches(FRAME).count() % 3 == 0 && table.contains(FRAME));
}

#[test]
fn a_table_does_not_replace_a_frame() {
    let dir = TempDir::new();
    let frame = dir.path().join("frame.dat");
    std::fs::copy(FRAME, &frame).unwrap();
    let name = frame.display().to_string();
    let Some(output) = detect(&["--csv", &name, &name]) else { return };
    assert!(!output.status.success() && text(&output.stderr).contains("one of the frames"));
    assert_eq!(std::fs::read(&frame).unwrap(), std::fs::read(FRAME).unwrap());
}

#[test]
fn nonsense_is_refused() {
    for (arguments, words) in [
        (&["--sigma", "99", FRAME][..], "psf_sigma_px"),
        (&["--false-alarms", "0", FRAME], "false_alarms_per_frame"),
        (&["--device", "no adapter has this name", FRAME], "no adapter has this name"),
        (&["--hdu", "7", FRAME], "no HDU 7"),
        (&["--tracking", "rate:x", FRAME], "rate:LENGTH_PX,ANGLE_DEG"),
        (&["--tracking", "rate:1e9,3", FRAME], "at most 4 times its diagonal"),
        (&["--csv", "no/table.fits.gz", FRAME], "the name of a FITS file"),
        (&["--device", "", FRAME], "is empty"),
        (&["--light-curves", FRAME], "--json"),
        (&[concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")], "*.fits"),
        (&[], "Usage"),
    ] {
        let Some(output) = detect(arguments) else { return };
        let errors = text(&output.stderr);
        assert!(
            !output.status.success() && output.stdout.is_empty() && errors.contains(words),
            "{arguments:?}: {errors}"
        );
    }
}
