//! The Gaussian and its integral in plain arithmetic: no branches and no calls, so that loops over pixels vectorise.
//!
//! Multiplications and additions are not fused: every machine gets the same bits, whatever its vectors are.

/// 1 / √(2π).
pub(crate) const INV_SQRT_TAU: f32 = 0.398_942_3;

/// `exp` of less than this is nothing.
const LEAST_EXPONENT: f32 = -80.0;

/// Adding this leaves a float rounded to an integer, in its last bits.
const ROUNDER: f32 = 12_582_912.0;

/// ln 2 in two parts: a multiple of the first is exact.
const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

/// eˣ for x from −80 to 0, to a relative error of 1.5e-7; below −80 it is taken for −80.
///
/// x is cut into a multiple of ln 2, which goes into the exponent, and a rest within ± ½ ln 2, for which a polynomial
/// (that of the Cephes library) does.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > LEAST_EXPONENT { x } else { LEAST_EXPONENT };
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = x - n * LN_2.0 - n * LN_2.1;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (p * (r * r) + r + 1.0) * power
}

/// The Gaussian of unit width and unit height.
#[inline(always)]
pub(crate) fn bell(t: f32) -> f32 {
    exp(-0.5 * (t * t))
}

/// Φ(t) and φ(t) of the unit Gaussian: the error function by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7),
/// which shares its exponential with the density.
#[inline(always)]
pub(crate) fn step(t: f32) -> (f32, f32) {
    let x = t.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = bell(t);
    let k = 1.0 / (1.0 + 0.327_591_1 * x);
    let tail = k * (0.254_829_6 + k * (-0.284_496_72 + k * (1.421_413_8 + k * (-1.453_152 + k * 1.061_405_4)))) * e;
    let upper = 1.0 - 0.5 * tail;
    (if t >= 0.0 { upper } else { 1.0 - upper }, INV_SQRT_TAU * e)
}

/// From here on [`step`] is 1 in single precision, and 0 as far on the other side.
pub(crate) const STEP_WIDTHS: f32 = 5.6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_single_precision() {
        for i in 0..=800_000 {
            let x = -1e-4 * i as f32;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 1.5e-7, "{x}: {} {exact}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), exp(-80.0));
    }

    #[test]
    fn the_step_is_the_normal_distribution() {
        for i in -600..=600 {
            let t = 0.01 * i as f32;
            let exact = 0.5 * (1.0 + libm::erf(f64::from(t) / std::f64::consts::SQRT_2));
            assert!((f64::from(step(t).0) - exact).abs() < 2.5e-7, "{t}");
        }
        assert!(1.0 - step(STEP_WIDTHS).0 < 1e-7 && step(-STEP_WIDTHS).0 < 1e-7);
    }
}
