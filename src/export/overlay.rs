//! A picture of a frame with its detections outlined.

use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::{Detection, Error, Frame, Kind, Point, Report, Result, Role, Segment};

/// Longer side of a picture, px: larger frames are averaged down, smaller ones enlarged.
const PICTURE_SIDE_PX: std::ops::RangeInclusive<usize> = 512..=2048;

/// About how many pixels the brightness scale is taken from.
const STRETCH_SAMPLE: usize = 50_000;

/// Brightness scale in units of the background's noise: black below the median, white above it.
const BLACK_BELOW_SIGMAS: f32 = 1.5;
const WHITE_ABOVE_SIGMAS: f32 = 40.0;

/// Where the scale turns from linear to logarithmic, in units of the noise.
const LINEAR_SIGMAS: f32 = 4.0;

/// Distance of an outline from the track, in units of its width, and at least in picture pixels.
const OUTLINE_IN_SIGMAS: f64 = 4.0;
const MIN_OUTLINE_PX: f64 = 5.0;

const TARGET_COLOUR: Rgb<u8> = Rgb([60, 255, 90]);
const STAR_COLOUR: Rgb<u8> = Rgb([90, 120, 170]);

/// Draws a frame in grey, with a thin outline around each detection so that the light itself stays visible.
///
/// Row 0 is at the top. Targets are green, stars dim blue. Brightness follows the background's median and noise and
/// is compressed towards the bright end (asinh); pixels left out are black, saturated ones white.
/// The longer side of the picture has 512 to 2048 px, an integer multiple or fraction of the frame's.
#[must_use]
pub fn draw(frame: &Frame<'_>, report: &Report) -> RgbImage {
    let zoom = Zoom::for_side(frame.width().max(frame.height()));
    let stretch = Stretch::of(frame);
    let (width, height) = (zoom.picture_side(frame.width()), zoom.picture_side(frame.height()));
    let mut picture = RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let shade = mean_of_block(frame, zoom, x as usize, y as usize).map_or(0, |value| stretch.shade(value));
        Rgb([shade; 3])
    });
    // Stars first: a target stays on top of them.
    for role in [Role::Star, Role::Target] {
        for detection in report.detections.iter().filter(|d| d.role == role) {
            outline(&mut picture, zoom, detection);
        }
    }
    picture
}

/// Draws a frame with its detections into a PNG file; a file of that name is replaced. See [`draw`].
///
/// # Errors
///
/// [`Error::Io`] when the file cannot be written.
pub fn save_png(path: &Path, frame: &Frame<'_>, report: &Report) -> Result<()> {
    draw(frame, report)
        .save_with_format(path, ImageFormat::Png)
        .map_err(|e| Error::io(format!("the picture cannot be written ({e})"), path))
}

/// Integer ratio of picture and frame: one of the two is 1.
#[derive(Clone, Copy)]
struct Zoom {
    enlarge: usize,
    shrink: usize,
}

impl Zoom {
    fn for_side(side_px: usize) -> Self {
        Self {
            enlarge: PICTURE_SIDE_PX.start().div_ceil(side_px.max(1)),
            shrink: side_px.div_ceil(*PICTURE_SIDE_PX.end()),
        }
    }

    fn picture_side(self, side_px: usize) -> usize {
        (side_px * self.enlarge).div_ceil(self.shrink)
    }

    fn scale(self) -> f64 {
        self.enlarge as f64 / self.shrink as f64
    }

    /// Both images have pixel centres at whole numbers and edges at halves.
    fn to_picture(self, p: Point) -> Point {
        Point::new((p.x + 0.5) * self.scale() - 0.5, (p.y + 0.5) * self.scale() - 0.5)
    }
}

/// Mean of the frame's pixels under one pixel of the picture; none where all are left out.
fn mean_of_block(frame: &Frame<'_>, zoom: Zoom, x: usize, y: usize) -> Option<f32> {
    let pixels_under = |i: usize, side: usize| {
        let first = i * zoom.shrink / zoom.enlarge;
        first..(first + zoom.shrink).min(side)
    };
    let (mut sum, mut count) = (0.0_f32, 0_u32);
    for row_ix in pixels_under(y, frame.height()) {
        for column_ix in pixels_under(x, frame.width()) {
            if let Some(value) = visible_value(frame, row_ix * frame.width() + column_ix) {
                sum += value;
                count += 1;
            }
        }
    }
    (count > 0).then(|| sum / count as f32)
}

/// The value of a pixel that can be shown: usable or saturated.
fn visible_value(frame: &Frame<'_>, index: usize) -> Option<f32> {
    frame.usable_value(index).or_else(|| {
        let value = frame.pixels().value(index);
        let is_masked = frame.mask().is_some_and(|mask| mask[index]);
        let is_saturated = frame.saturation().is_some_and(|level| f64::from(value) >= level);
        (is_saturated && !is_masked && value.is_finite()).then_some(value)
    })
}

/// From a pixel's value to a shade of grey.
struct Stretch {
    median: f32,
    sigma: f32,
}

impl Stretch {
    fn of(frame: &Frame<'_>) -> Self {
        let n = frame.pixels().len();
        // An odd step does not stay on the columns of a frame whose width is a power of two.
        let step = (n / STRETCH_SAMPLE) | 1;
        let mut sample: Vec<f32> = (0..n).step_by(step).filter_map(|i| frame.usable_value(i)).collect();
        let median = median(&mut sample).unwrap_or(0.0);
        let mut deviations: Vec<f32> = sample.iter().map(|v| (v - median).abs()).collect();
        let robust = 1.4826 * self::median(&mut deviations).unwrap_or(0.0);
        let mean = deviations.iter().sum::<f32>() / deviations.len().max(1) as f32;
        // Where more than half of the pixels are equal the median deviation is 0.
        let sigma = [robust, mean].into_iter().find(|s| *s > 0.0 && s.is_finite()).unwrap_or(1.0);
        Self { median, sigma }
    }

    fn shade(&self, value: f32) -> u8 {
        let bend = |sigmas: f32| (sigmas / LINEAR_SIGMAS).asinh();
        let black = bend(-BLACK_BELOW_SIGMAS);
        let position = (bend((value - self.median) / self.sigma) - black) / (bend(WHITE_ABOVE_SIGMAS) - black);
        (position * 255.0).clamp(0.0, 255.0) as u8
    }
}

fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

fn outline(picture: &mut RgbImage, zoom: Zoom, detection: &Detection) {
    let colour = match detection.role {
        Role::Target => TARGET_COLOUR,
        Role::Star => STAR_COLOUR,
    };
    let track = Segment::new(zoom.to_picture(detection.segment.start), zoom.to_picture(detection.segment.end));
    let margin_px = (OUTLINE_IN_SIGMAS * detection.sigma_px * zoom.scale()).max(MIN_OUTLINE_PX);
    let corners = match detection.kind {
        Kind::Streak => rectangle_around(track, margin_px),
        Kind::Point => circle_around(track.midpoint(), margin_px),
    };
    for (i, &corner) in corners.iter().enumerate() {
        line(picture, Segment::new(corner, corners[(i + 1) % corners.len()]), colour);
    }
}

fn rectangle_around(track: Segment, margin_px: f64) -> Vec<Point> {
    let (c, s) = track.direction();
    let longer = track.extended(margin_px, margin_px);
    let beside = |p: Point, across_px: f64| Point::new(p.x - across_px * s, p.y + across_px * c);
    vec![
        beside(longer.start, -margin_px),
        beside(longer.end, -margin_px),
        beside(longer.end, margin_px),
        beside(longer.start, margin_px),
    ]
}

fn circle_around(centre: Point, radius_px: f64) -> Vec<Point> {
    let n = 64;
    let corner = |i: i32| {
        let (s, c) = (std::f64::consts::TAU * f64::from(i) / f64::from(n)).sin_cos();
        Point::new(centre.x + radius_px * c, centre.y + radius_px * s)
    };
    (0..n).map(corner).collect()
}

fn line(picture: &mut RgbImage, segment: Segment, colour: Rgb<u8>) {
    let is_finite = [segment.start, segment.end].iter().all(|p| p.x.is_finite() && p.y.is_finite());
    let (width, height) = picture.dimensions();
    let visible = if is_finite { segment.clipped_to(width as usize, height as usize) } else { None };
    let Some(visible) = visible else { return };
    let n_steps = visible.length_px().ceil().max(1.0) as u32;
    for step in 0..=n_steps {
        let p = visible.at(f64::from(step) / f64::from(n_steps));
        if let Some(pixel) = picture.get_pixel_mut_checked(p.x.round() as u32, p.y.round() as u32) {
            *pixel = colour;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sample;

    fn noisy_frame(width: usize, height: usize) -> Frame<'static> {
        let pixels: Vec<u16> = (0..width * height).map(|i| 1000 + (i * 7919 % 41) as u16).collect();
        Frame::new(pixels, width, height).unwrap()
    }

    #[test]
    fn pictures_have_a_handy_size() {
        for (width, height, expected) in
            [(60, 40, (540, 360)), (1, 1, (512, 512)), (1024, 700, (1024, 700)), (5000, 4001, (1667, 1334))]
        {
            let picture = draw(&noisy_frame(width, height), &Report { width, height, ..sample::report() });
            assert_eq!(picture.dimensions(), expected, "{width} x {height}");
        }
    }

    #[test]
    fn outlines_leave_the_track_visible() {
        let picture = draw(&noisy_frame(60, 40), &sample::report());
        let zoom = Zoom::for_side(60);
        let at = |x: f64, y: f64| {
            let p = zoom.to_picture(Point::new(x, y));
            *picture.get_pixel(p.x.round() as u32, p.y.round() as u32)
        };
        let is_grey = |Rgb([r, g, b]): Rgb<u8>| r == g && g == b;
        assert!(is_grey(at(25.0, 20.0)) && is_grey(at(50.0, 5.0)));
        // The star's outline is 6 px beside its track, the point's 6 px around its centre.
        assert_eq!(at(15.0, 29.0), STAR_COLOUR);
        assert_eq!(at(44.0, 5.0), TARGET_COLOUR);
    }

    #[test]
    fn brightness_follows_the_background() {
        let mut pixels: Vec<f32> = (0..600 * 4).map(|i| 100.0 + (i % 5) as f32).collect();
        pixels[0] = f32::NAN;
        pixels[1] = 1e9;
        let report = Report { detections: vec![], ..sample::report() };
        let picture = draw(&Frame::new(pixels, 600, 4).unwrap().with_saturation(1e6), &report);
        let shades: Vec<u8> = picture.pixels().take(8).map(|p| p.0[0]).collect();
        assert_eq!(shades[..2], [0, 255]);
        assert!(shades[4] > shades[5] && (20..60).contains(&shades[7]), "{shades:?}");
    }

    #[test]
    fn wild_positions_and_flat_frames_do_no_harm() {
        let mut report = sample::report();
        report.detections[0].segment = Segment::from_coordinates(-1e12, 5.0, 1e12, 6.0);
        report.detections[1].segment = Segment::from_coordinates(f64::NAN, 5.0, f64::INFINITY, 6.0);
        let picture = draw(&Frame::new(vec![7_u8; 2400], 60, 40).unwrap(), &report);
        assert_eq!(picture.width(), 540);
    }

    #[test]
    fn saves_a_png() {
        let path = std::env::temp_dir().join(format!("skystreak-overlay-{}.png", std::process::id()));
        save_png(&path, &noisy_frame(60, 40), &sample::report()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        let missing = Path::new("/no-such-folder/a.png");
        assert!(matches!(save_png(missing, &noisy_frame(6, 4), &sample::report()), Err(Error::Io { .. })));
    }
}
