//! Light along a track, bin by bin, and how much of a shape is in it: loops on the widest vectors of the machine.

use pulp::{Arch, NullaryFnOnce};

use crate::gauss::{INV_SQRT_TAU, bell, step};

/// Bins that are summed side by side.
const TOGETHER: usize = 16;

/// Light in bins `bin_px` apart, the first of which lies `begin_px` from where a trail begins, of one unit per length: an even
/// line, blurred by the PSF. Of a point, which has no length, one unit in all.
pub(super) fn along(begin_px: f64, bin_px: f64, n: usize, length_px: f64, sigma_px: f64) -> Vec<f32> {
    let mut light = vec![0.0; n];
    Arch::new().dispatch(Along {
        light: &mut light,
        begin: (begin_px / sigma_px) as f32,
        bin: (bin_px / sigma_px) as f32,
        length: (length_px / sigma_px) as f32,
        height: INV_SQRT_TAU / sigma_px as f32,
    });
    light
}

/// `Σ shape[k] values[i + k]` for every `i` of `out`: the same bits whichever part of them is asked for.
pub(super) fn correlate(shape: &[f32], values: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(Correlate { shape, values, out });
}

/// The largest `light |light| / power`, which rises as the S/N does, and the last place that has it; none where no power is.
pub(super) fn largest(light: &[f32], power: &[f32]) -> Option<(usize, f32)> {
    let largest = Arch::new().dispatch(Largest { light, power });
    let last = light.iter().zip(power).rposition(|(light, power)| squared(*light, *power) == largest);
    last.filter(|_| largest > f32::NEG_INFINITY).map(|place| (place, largest))
}

/// Signed square of a S/N.
#[inline(always)]
fn squared(light: f32, power: f32) -> f32 {
    if power > 0.0 { light * light.abs() / power } else { f32::NEG_INFINITY }
}

struct Largest<'a> {
    light: &'a [f32],
    power: &'a [f32],
}

impl NullaryFnOnce for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let (light, light_rest) = self.light.as_chunks::<TOGETHER>();
        let (power, power_rest) = self.power.as_chunks::<TOGETHER>();
        let mut largest = [f32::NEG_INFINITY; TOGETHER];
        for (light, power) in light.iter().zip(power) {
            for ((largest, light), power) in largest.iter_mut().zip(light).zip(power) {
                let here = squared(*light, *power);
                *largest = if here > *largest { here } else { *largest };
            }
        }
        let rest = light_rest.iter().zip(power_rest).map(|(light, power)| squared(*light, *power));
        largest.into_iter().chain(rest).fold(f32::NEG_INFINITY, f32::max)
    }
}

/// In PSF widths.
struct Along<'a> {
    light: &'a mut [f32],
    begin: f32,
    bin: f32,
    length: f32,
    height: f32,
}

impl NullaryFnOnce for Along<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { light, begin, bin, length, height } = self;
        if length == 0.0 {
            for (k, light) in light.iter_mut().enumerate() {
                *light = height * bell(begin + bin * k as i32 as f32);
            }
        } else {
            for (k, light) in light.iter_mut().enumerate() {
                let u = begin + bin * k as i32 as f32;
                *light = step(u).0 - step(u - length).0;
            }
        }
    }
}

struct Correlate<'a> {
    shape: &'a [f32],
    values: &'a [f32],
    out: &'a mut [f32],
}

impl NullaryFnOnce for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { shape, values, out } = self;
        let (all, rest) = out.as_chunks_mut::<TOGETHER>();
        let n = all.len() * TOGETHER;
        for (first, out) in (0..).step_by(TOGETHER).zip(all) {
            let mut sums = [0.0; TOGETHER];
            let values = values[first..first + shape.len() + TOGETHER - 1].windows(TOGETHER);
            for (weight, values) in shape.iter().zip(values) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            *out = sums;
        }
        for (out, values) in rest.iter_mut().zip(values[n..].windows(shape.len())) {
            let mut sum = 0.0;
            for (weight, value) in shape.iter().zip(values) {
                sum += weight * value;
            }
            *out = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_line_is_blurred_at_its_ends() {
        let (sigma_px, length_px) = (1.5, 30.0);
        let light = along(-10.25, 0.5, 100, length_px, sigma_px);
        let erf = |t: f64| 0.5 * (1.0 + libm::erf(t / (sigma_px * std::f64::consts::SQRT_2)));
        for (k, light) in light.iter().enumerate() {
            let u = -10.25 + 0.5 * k as f64;
            assert!((f64::from(*light) - (erf(u) - erf(u - length_px))).abs() < 1e-6, "{u}: {light}");
        }
        let point = along(-10.25, 0.5, 50, 0.0, sigma_px);
        assert!((point.iter().sum::<f32>() * 0.5 - 1.0).abs() < 1e-5, "all of its light is there");
    }

    #[test]
    fn the_largest_snr_is_found_where_it_is() {
        let noise = crate::simulate::gaussian_frame(75, 2, 3, 1.0);
        let (light, power) = noise.split_at(75);
        let mut power: Vec<f32> = power.iter().map(|p| p * p + 0.1).collect();
        let snr = |k: usize| light[k] / power[k].sqrt();
        let best = (0..75).max_by(|a, b| snr(*a).total_cmp(&snr(*b))).unwrap();
        let (place, squared) = largest(light, &power).unwrap();
        assert_eq!(place, best);
        assert!((squared.sqrt() - snr(best)).abs() < 1e-5);
        power[best] = 0.0;
        assert_ne!(largest(light, &power).unwrap().0, best, "no power, no S/N");
        assert_eq!(largest(light, &[0.0; 75]), None);
        assert!(largest(&[-1.0, -2.0], &[1.0, 1.0]).is_some_and(|(place, squared)| place == 0 && squared == -1.0));
    }

    #[test]
    fn sums_are_the_same_wherever_they_begin() {
        let values = crate::simulate::gaussian_frame(100, 1, 7, 1.0);
        let shape = &values[40..53];
        let mut all = vec![0.0; 88];
        correlate(shape, &values, &mut all);
        for (i, sum) in all.iter().enumerate() {
            let exact: f64 = shape.iter().zip(&values[i..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(*sum) - exact).abs() < 1e-5, "{i}: {sum} {exact}");
        }
        let mut part = vec![0.0; 23];
        correlate(shape, &values[11..], &mut part);
        assert_eq!(part, all[11..34]);
    }
}
