//! Reading frames from FITS files of every kind, and refusing what is none.
#![cfg(feature = "fits")]
#![expect(unreachable_pub, reason = "the helper module is part of this program")]

#[path = "support/fits_bytes.rs"]
mod fits_bytes;

use std::path::Path;

use fits_bytes::{Hdu, TempDir, gzip_stored};
use skystreak::io::fits::{HduChoice, ReadOptions, read_frame, read_frame_with, write_mask};
use skystreak::{Error, Frame, Pixels, Result};

/// Writes the HDUs to a file and reads them back with options.
fn round_trip(hdus: &[Hdu], options: &ReadOptions) -> Result<Frame<'static>> {
    let dir = TempDir::new();
    let bytes: Vec<u8> = hdus.iter().flat_map(Hdu::bytes).collect();
    read_frame_with(&dir.file("frame.fits", &bytes), options)
}

fn read(hdu: Hdu) -> Result<Frame<'static>> {
    round_trip(&[hdu], &ReadOptions::default())
}

fn values(frame: &Frame<'_>) -> Vec<Option<f32>> {
    (0..frame.pixels().len()).map(|i| frame.usable_value(i)).collect()
}

/// The message of an error; panics when there is a frame.
fn refusal(result: Result<Frame<'static>>) -> String {
    let error = result.expect_err("must be refused");
    assert!(error.is_input() || matches!(error, Error::Limit { .. }), "{error:?}");
    error.to_string()
}

/// A 3 x 2 image of shorts.
fn shorts() -> Hdu {
    Hdu::primary(16, &[3, 2], big_endian!([1_i16, 2, 3, 4, 5, -6]))
}

#[test]
fn integers_keep_their_type() {
    let frame = read(Hdu::primary(8, &[3, 2], vec![0, 1, 2, 3, 4, 255])).unwrap();
    assert_eq!((frame.width(), frame.height()), (3, 2));
    assert_eq!(frame.pixels(), &Pixels::from(vec![0_u8, 1, 2, 3, 4, 255]));
    assert_eq!(read(shorts()).unwrap().pixels(), &Pixels::from(vec![1_i16, 2, 3, 4, 5, -6]));
    let longs = [i32::MIN, -1, 0, 1, 70_000, i32::MAX];
    assert_eq!(read(Hdu::primary(32, &[3, 2], big_endian!(longs))).unwrap().pixels(), &Pixels::from(longs.to_vec()));
}

#[test]
fn unsigned_16_bit_values_reach_65535() {
    let stored = [i16::MIN, -1, 0, i16::MAX];
    let hdu = Hdu::primary(16, &[4, 1], big_endian!(stored)).key("BZERO", "32768").key("BSCALE", "1.0");
    assert_eq!(read(hdu).unwrap().pixels(), &Pixels::from(vec![0_u16, 32767, 32768, 65535]));
}

#[test]
fn floats_and_wide_integers_become_single_precision() {
    let floats = [1.5_f32, f32::NAN, -2.0, f32::INFINITY];
    let frame = read(Hdu::primary(-32, &[2, 2], big_endian!(floats))).unwrap();
    assert_eq!(values(&frame), [Some(1.5), None, Some(-2.0), None]);
    let doubles = [1.5_f64, f64::NAN, -2.0, 1e300];
    let frame = read(Hdu::primary(-64, &[2, 2], big_endian!(doubles))).unwrap();
    assert_eq!(values(&frame), [Some(1.5), None, Some(-2.0), None]);
    let frame = read(Hdu::primary(64, &[2, 1], big_endian!([-7_i64, 1 << 40]))).unwrap();
    assert_eq!(frame.pixels(), &Pixels::from(vec![-7.0_f32, 1_099_511_627_776.0]));
    let unsigned = Hdu::primary(64, &[2, 1], big_endian!([i64::MIN, 0])).key("BZERO", "9223372036854775808");
    assert_eq!(values(&read(unsigned).unwrap()), [Some(0.0), Some(9.223_372e18)]);
    let unsigned = Hdu::primary(32, &[2, 1], big_endian!([i32::MIN, 0])).key("BZERO", "2147483648");
    assert_eq!(values(&read(unsigned).unwrap()), [Some(0.0), Some(2_147_483_648.0)]);
}

#[test]
fn scaled_integers_become_physical_values() {
    for (scale, zero) in [(0.5, 10.0), (-1.0, 0.0), (2.0, 0.0), (1.0, 100.0), (1.0, -128.0)] {
        let frame = read(shorts().key("BSCALE", &format!("{scale:?}")).key("BZERO", &format!("{zero:?}"))).unwrap();
        let expected: Vec<f32> = [1.0, 2.0, 3.0, 4.0, 5.0, -6.0].iter().map(|v| v * scale + zero).collect();
        assert_eq!(frame.pixels(), &Pixels::from(expected), "{scale} {zero}");
    }
}

#[test]
fn blank_pixels_are_missing_in_every_type() {
    let missing_fourth = |frame: &Frame<'_>| values(frame).iter().position(Option::is_none) == Some(3);
    let frame = read(shorts().key("BLANK", "4")).unwrap();
    assert!(frame.blank() == Some(4) && missing_fourth(&frame));

    // BLANK is the stored value: here it stands for 32768 + 4.
    let frame = read(shorts().key("BLANK", "4").key("BZERO", "32768")).unwrap();
    assert!(frame.blank() == Some(32772) && missing_fourth(&frame));

    let frame = read(shorts().key("BLANK", "4").key("BSCALE", "0.1").key("BZERO", "7.3")).unwrap();
    assert!(frame.blank().is_none() && missing_fourth(&frame), "{:?}", values(&frame));

    let longs = Hdu::primary(64, &[5, 1], big_endian!([1_i64, 2, 3, i64::MIN, 5]));
    assert!(missing_fourth(&read(longs.key("BLANK", "-9223372036854775808")).unwrap()));

    // No meaning for floats.
    let floats = Hdu::primary(-32, &[2, 1], big_endian!([4.0_f32, 5.0])).key("BLANK", "4");
    assert_eq!(values(&read(floats).unwrap()), [Some(4.0), Some(5.0)]);
}

#[test]
fn finds_the_first_image_or_the_named_one() {
    let file = || {
        let image = |name, value| Hdu::extension(name, 8, &[2, 1], vec![value, value]);
        [
            Hdu::empty(),
            Hdu::table(&[1, 2]),
            Hdu::extension("LINE", 8, &[3], vec![0; 3]),
            image("SCI", 1),
            image("ERR", 2),
        ]
    };
    let first_value = |hdu| {
        let frame = round_trip(&file(), &ReadOptions { hdu, plane: None })?;
        Ok::<_, Error>(frame.pixels().value(0))
    };
    assert_eq!(first_value(None).unwrap(), 1.0);
    assert_eq!(first_value(Some(HduChoice::Index(4))).unwrap(), 2.0);
    assert_eq!(first_value(Some(HduChoice::Name("err".into()))).unwrap(), 2.0);
    for (choice, words) in
        [("0", "no data"), ("1", "a table"), ("LINE", "an array of 3"), ("9", "5 of the file"), ("X", "no HDU \"X\"")]
    {
        let Ok(hdu) = choice.parse();
        let message = refusal(round_trip(&file(), &ReadOptions { hdu: Some(hdu), plane: None }));
        assert!(message.contains(words) && message.ends_with("frame.fits"), "{message}");
    }
}

#[test]
fn cubes_need_a_plane_unless_they_have_one() {
    let cube = |axes: &[usize]| Hdu::primary(8, axes, (0..axes.iter().product()).map(|v: usize| v as u8).collect());
    assert_eq!(read(cube(&[2, 3, 1])).unwrap().height(), 3);
    assert_eq!(read(cube(&[2, 3, 1, 1])).unwrap().width(), 2);
    let message = refusal(read(cube(&[2, 2, 3])));
    assert!(message.contains("a cube of 3 planes: choose one, from 0 to 2"), "{message}");
    let plane = |plane| round_trip(&[cube(&[2, 2, 3])], &ReadOptions { hdu: None, plane: Some(plane) });
    assert_eq!(plane(2).unwrap().pixels(), &Pixels::from(vec![8_u8, 9, 10, 11]));
    assert!(refusal(plane(3)).contains("plane 3 of HDU 0: it has planes 0 to 2"));
}

#[test]
fn gain_is_trusted_only_where_it_can_be_one() {
    let gain = |keys: &[(&str, &str)]| {
        let hdu = keys.iter().fold(shorts(), |hdu, (name, value)| hdu.key(name, value));
        read(hdu).unwrap().gain_e_per_adu()
    };
    assert_eq!(gain(&[]), None);
    assert_eq!(gain(&[("GAIN", "1.5")]), Some(1.5));
    assert_eq!(gain(&[("GAIN", "100")]), Some(100.0));
    assert_eq!(gain(&[("GAIN", "120"), ("EGAIN", "0.8")]), Some(0.8));
    assert_eq!(gain(&[("GAIN", "2.0"), ("EGAIN", "0")]), Some(2.0));
    for useless in ["0", "-1", "139", "'high    '", "'NaN'"] {
        assert_eq!(gain(&[("GAIN", useless)]), None, "{useless}");
    }
}

#[test]
fn broken_saturation_levels_are_ignored() {
    // The median of the pixels is 4 (of six, the upper middle).
    let saturation = |name: &str, value: &str| read(shorts().key(name, value)).unwrap().saturation();
    assert_eq!(saturation("SATURATE", "60000"), Some(60000.0));
    assert_eq!(saturation("DATAMAX", "5"), Some(5.0));
    assert_eq!(saturation("DATAMAX", "1"), None);
    assert_eq!(saturation("SATURATE", "0"), None);
    let both = shorts().key("SATURATE", "0").key("DATAMAX", "7");
    assert_eq!(read(both).unwrap().saturation(), Some(7.0));
}

#[test]
fn noise_and_exposure_under_their_many_names() {
    for name in ["RDNOISE", "READNOIS", "READNOISE"] {
        assert_eq!(read(shorts().key(name, "3.5")).unwrap().read_noise_e(), Some(3.5), "{name}");
    }
    for name in ["EXPTIME", "EXPOSURE", "XPOSURE"] {
        assert_eq!(read(shorts().key(name, "0.25")).unwrap().exposure_secs(), Some(0.25), "{name}");
    }
    assert_eq!(read(shorts().key("EXPTIME", "-1").key("EXPOSURE", "2")).unwrap().exposure_secs(), Some(2.0));
}

#[test]
fn times_say_where_they_come_from() {
    let times = |keys: &[(&str, &str)]| {
        let hdu = keys.iter().fold(shorts(), |hdu, (name, value)| hdu.key(name, value));
        read(hdu).unwrap().times().cloned()
    };
    let (date, later) = ("'2024-05-06T01:02:03.5'", "'2024-05-06T01:02:08'");
    assert_eq!(times(&[]), None);
    let found = times(&[("DATE-OBS", date), ("EXPTIME", "5")]).unwrap();
    assert_eq!(
        (found.start_utc.as_deref(), found.rule.as_str()),
        (Some("2024-05-06T01:02:03.5"), "DATE-OBS + EXPTIME")
    );
    assert_eq!((found.middle_utc, found.end_utc), (None, None));
    let found = times(&[("DATE-OBS", later), ("DATE-BEG", date), ("DATE-END", later), ("EXPTIME", "5")]).unwrap();
    assert_eq!(
        (found.start_utc.as_deref(), found.rule.as_str()),
        (Some("2024-05-06T01:02:03.5"), "DATE-BEG, DATE-END")
    );
    assert_eq!(found.end_utc.as_deref(), Some("2024-05-06T01:02:08"));
    let found = times(&[("DATE-OBS", "'2024-05-06'"), ("TIME-OBS", "'01:02:03'")]).unwrap();
    assert_eq!(found.start_utc.as_deref(), Some("2024-05-06T01:02:03"));
    assert_eq!(times(&[("DATE-OBS", date), ("TIMESYS", "'TAI'")]), None);
}

#[test]
fn extensions_inherit_the_primary_header() {
    let primary = Hdu::empty().key("EXPTIME", "30").key("GAIN", "2");
    let image = Hdu::extension("SCI", 8, &[2, 1], vec![1, 2]).key("GAIN", "3");
    let frame = round_trip(&[primary, image], &ReadOptions::default()).unwrap();
    assert_eq!((frame.exposure_secs(), frame.gain_e_per_adu()), (Some(30.0), Some(3.0)));
}

#[test]
fn refuses_what_holds_no_image() {
    let dir = TempDir::new();
    let check = |path: &Path, words: &str| {
        let message = refusal(read_frame(path));
        assert!(message.contains(words) && message.ends_with(&path.display().to_string()), "{words}: {message}");
    };
    check(&dir.path().join("missing.fits"), "cannot be read");
    check(dir.path(), "a folder, not one of its files");
    check(&dir.file("empty.fits", b""), "the file is empty");
    check(&dir.file("notes.fits", b"These are notes about the night.\n"), "not readable as FITS");
    check(&dir.file("long.txt", &b"no FITS at all, only text\n".repeat(1000)), "not readable as FITS");
    check(&dir.file("binary.fits", &(0..20_000).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>()), "not readable");
    let save = |name: &str, hdus: &[Hdu]| dir.file(name, &hdus.iter().flat_map(Hdu::bytes).collect::<Vec<_>>());
    check(
        &save("table.fits", &[Hdu::empty(), Hdu::table(&[1])]),
        "no HDU holds a 2-D image (0 holds no data; 1 holds a table)",
    );
    check(&save("line.fits", &[Hdu::primary(8, &[5], vec![0; 5])]), "0 holds an array of 5");
    check(&save("zero.fits", &[Hdu::primary(8, &[5, 0], vec![])]), "0 holds an array of 5 x 0");
    check(&save("bitpix.fits", &[Hdu::primary(-128, &[2, 2], vec![0; 64])]), "not readable as FITS");
    check(&save("negative.fits", &[Hdu::empty().key("NAXIS1", "-3")]), "2-D image");
}

#[test]
fn refuses_frames_too_large_before_reading_them() {
    let message = refusal(read(Hdu::primary(8, &[20_000, 2], vec![0; 40_000])));
    assert!(message.contains("20000 x 2") && message.contains("at most 16384"), "{message}");
    // A header alone, which claims more than any memory holds.
    let message = refusal(read(Hdu::primary(-64, &[999_999_999, 999_999_999], vec![])));
    assert!(message.contains("limit"), "{message}");
}

#[test]
fn refuses_files_cut_short_anywhere() {
    let dir = TempDir::new();
    let pixels: Vec<i16> = (0..100 * 80).map(|i| i as i16 + 1).collect();
    let whole = Hdu::primary(16, &[100, 80], big_endian!(pixels)).bytes();
    let end_of_data = 2880 + 2 * pixels.len();
    // The padding at the end carries nothing.
    assert!(read_frame(&dir.file("unpadded.fits", &whole[..end_of_data])).is_ok());
    for length in [1, 79, 80, 2000, 2879, 2880, 2881, 5760, 7000, 8640, end_of_data - 1] {
        let path = dir.file("cut.fits", &whole[..length]);
        assert!(read_frame(&path).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn damaged_headers_never_panic() {
    let dir = TempDir::new();
    let whole = [Hdu::empty().key("GAIN", "2"), Hdu::extension("SCI", 16, &[4, 3], vec![1; 24]).key("BLANK", "5")]
        .iter()
        .flat_map(Hdu::bytes)
        .collect::<Vec<_>>();
    // Seed 1 of a linear congruential generator.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..2000 {
        let mut damaged = whole.clone();
        for _ in 0..=random(3) {
            // Within the cards in use of either header.
            let place = random(2) * 2880 + random(800);
            damaged[place] = b"0123456789-+.=' TFXE/\0\xff"[random(23)];
        }
        let _ = read_frame(&dir.file("damaged.fits", &damaged));
    }
}

#[test]
fn names_are_taken_literally() {
    let dir = TempDir::new();
    let bytes = shorts().bytes();
    for name in
        ["a[1].fits", "b (2).fits", "c.fits+1", "d.fits[0:1,0:1]", "~e.fits", "f'\"#.fits", "g.imh", "sub dir+3/h.fits"]
    {
        let frame = read_frame(&dir.file(name, &bytes)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(frame.pixels().len(), 6, "{name}");
    }
    for address in ["http://localhost/a.fits", "ftp:a.fits", "mem:", "-", "shmem:h1", "stdin.fits"] {
        let message = refusal(read_frame(Path::new(address)));
        assert!(message.contains("cannot be read") && message.ends_with(address), "{message}");
    }
}

#[test]
fn reads_gzip() {
    // The stored form of deflate needs no compressor.
    let dir = TempDir::new();
    let path = dir.file("frame.fits.gz", &gzip_stored(&shorts().bytes()));
    assert_eq!(read_frame(&path).unwrap(), read(shorts()).unwrap());
    let whole = gzip_stored(&shorts().bytes());
    assert!(read_frame(&dir.file("cut.fits.gz", &whole[..whole.len() / 2])).is_err());
}

#[test]
fn reads_tile_compressed_images() {
    use fitsio::FitsFile;
    use fitsio::images::{ImageDescription, ImageType};

    let dir = TempDir::new();
    let pixels: Vec<u16> = (0..64 * 50).map(|i| 40_000 + (i * 37 % 901) as u16).collect();
    let path = dir.path().join("frame.fits.fz");
    {
        let description = ImageDescription { data_type: ImageType::UnsignedShort, dimensions: &[50, 64] };
        let compressed = format!("{}[compress R]", path.display());
        let mut file = FitsFile::create(compressed).open().unwrap();
        let hdu = file.create_image("SCI", &description).unwrap();
        hdu.write_image(&mut file, &pixels).unwrap();
        hdu.write_key(&mut file, "EGAIN", 1.25).unwrap();
    }
    let frame = read_frame(&path).unwrap();
    assert_eq!((frame.width(), frame.height()), (64, 50));
    assert_eq!(frame.pixels(), &Pixels::from(pixels));
    assert_eq!(frame.gain_e_per_adu(), Some(1.25));
}

#[test]
fn missing_pixels_stay_missing_in_compressed_floats() {
    let quantised = [1_i32, 2, i32::MIN, 4, 5, -6];
    let frame = round_trip(&[Hdu::empty(), Hdu::quantised(0.5, 100.0, [3, 2], &quantised)], &ReadOptions::default());
    let frame = frame.unwrap();
    assert_eq!((frame.width(), frame.height()), (3, 2));
    assert_eq!(values(&frame), [Some(100.5), Some(101.0), None, Some(102.0), Some(102.5), Some(97.0)]);
}

#[test]
fn masks_replace_older_files() {
    let dir = TempDir::new();
    let path = dir.file("mask[1].fits", &[b'x'; 100_000]);
    let mask: Vec<bool> = (0..70 * 50).map(|i| i % 7 == 0).collect();
    write_mask(&path, 70, 50, &mask).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2880 + 5760);
    let frame = read_frame(&path).unwrap();
    assert_eq!((frame.width(), frame.height()), (70, 50));
    assert_eq!(frame.pixels(), &Pixels::from(mask.iter().map(|&m| u8::from(m)).collect::<Vec<_>>()));
    assert!(matches!(write_mask(&path, 70, 51, &mask), Err(Error::Input(_))));
    assert!(matches!(write_mask(&dir.path().join("no/such/mask.fits"), 70, 50, &mask), Err(Error::Io { .. })));
}
