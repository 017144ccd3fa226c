//! One suite for both backends: stage by stage, the GPU does what the CPU does.
//!
//! Every stage gets equal input on both sides. Integer-valued images whose sums stay below 2^24 have to agree
//! exactly; real values within bounds derived from the number of roundings, stated where they are used. Any adapter
//! will do, software included. With none the suite says on stderr that it skips, and fails where `REQUIRE_GPU=1`.

mod chain;
mod images;
mod measures;
mod search;

use std::sync::{Arc, OnceLock};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Backend;
use super::cpu::CpuBackend;
use super::gpu::{AdapterChoice, Context, GpuBackend, adapters};

/// Rounding of one operation in single precision.
const EPS: f32 = f32::EPSILON;

/// Width and height: single pixels, thin, around a workgroup and a tile, nothing round, several tiles.
const SIZES: [(usize, usize); 6] = [(1, 1), (3, 70), (64, 64), (65, 63), (130, 97), (256, 200)];

/// The one device of this test binary: kernels are compiled once.
fn context() -> Option<Arc<Context>> {
    static CONTEXT: OnceLock<Option<Arc<Context>>> = OnceLock::new();
    let open = || {
        let context = Context::open(AdapterChoice::Any).inspect_err(|e| eprintln!("conformance suite skipped: {e}"));
        assert!(context.is_ok() || std::env::var("REQUIRE_GPU").as_deref() != Ok("1"), "REQUIRE_GPU=1: {context:?}");
        context.ok()
    };
    CONTEXT.get_or_init(open).clone()
}

/// Both backends, ready for frames of one shape.
struct Pair {
    cpu: CpuBackend,
    gpu: GpuBackend,
    width: usize,
    height: usize,
}

impl Pair {
    /// None where there is no device.
    fn new((width, height): (usize, usize)) -> Option<Self> {
        let mut pair = Self { cpu: CpuBackend::default(), gpu: GpuBackend::new(context()?).unwrap(), width, height };
        pair.each(|b| b.prepare(width, height).unwrap());
        Some(pair)
    }

    /// The same on both; CPU first.
    fn each<T>(&mut self, mut call: impl FnMut(&mut dyn Backend) -> T) -> (T, T) {
        (call(&mut self.cpu), call(&mut self.gpu))
    }

    fn len(&self) -> usize {
        self.width * self.height
    }

    /// Equal images on both sides: (residual, weight, filtered, coverage).
    fn write(&mut self, images: [&[f32]; 4]) {
        self.each(|b| b.write_images(images).unwrap());
    }

    /// Residuals and weights are equal up to the bounds, given one for each pixel.
    fn check_images(&mut self, what: &str, residual: impl Fn(usize) -> f32, weight: impl Fn(usize) -> f32) {
        let (cpu, gpu) = self.each(|b| b.read_images().unwrap());
        check(&format!("{what}: residual"), &cpu.0, &gpu.0, residual);
        check(&format!("{what}: weight"), &cpu.1, &gpu.1, weight);
    }
}

fn exact(_: usize) -> f32 {
    0.0
}

/// First value that differs by more than its bound. What is not a number differs from everything.
fn first_difference(cpu: &[f32], gpu: &[f32], bound: impl Fn(usize) -> f32) -> Option<usize> {
    let differs = |i: usize| {
        let difference = (cpu[i] - gpu[i]).abs();
        difference > bound(i) || difference.is_nan()
    };
    (0..cpu.len()).find(|&i| differs(i))
}

fn check(what: &str, cpu: &[f32], gpu: &[f32], bound: impl Fn(usize) -> f32) {
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    if let Some(i) = first_difference(cpu, gpu, &bound) {
        panic!("{what}: value {i} is {} on the CPU, {} on the GPU, bound {:e}", cpu[i], gpu[i], bound(i));
    }
}

/// Integers from −`most` to `most`.
fn integers(n: usize, most: i32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-most..=most) as f32).collect()
}

/// Unit Gaussian noise.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
}

/// Positive weights with some pixels missing and some saturated.
fn weights_with_holes(n: usize, weight: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kind = |k: u32| match k {
        0 => 0.0,
        1 => -weight,
        _ => weight,
    };
    (0..n).map(|_| kind(rng.random_range(0..20))).collect()
}

#[test]
fn the_comparator_sees_a_planted_difference() {
    let (a, mut b) = (vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0]);
    assert_eq!(first_difference(&a, &b, exact), None);
    b[1] += 1e-6;
    assert_eq!(first_difference(&a, &b, exact), Some(1));
    assert_eq!(first_difference(&a, &b, |_| 1e-5), None);
    b[2] = f32::NAN;
    assert_eq!(first_difference(&a, &b, |_| 1e-5), Some(2));
}

#[test]
fn a_frame_beyond_the_device_is_refused_and_the_next_one_is_not() {
    let Some(mut pair) = Pair::new((8, 8)) else { return };
    let refused = pair.gpu.prepare(1 << 20, 1 << 20);
    assert!(matches!(refused, Err(crate::Error::Limit { .. })), "{refused:?}");
    pair.gpu.prepare(8, 8).unwrap();
    pair.write([&[1.0; 64]; 4]);
    pair.check_images("after a refusal", exact, exact);
}

#[test]
fn a_device_is_asked_for_by_name() {
    let Some(open) = context() else { return };
    let name = open.description().name.to_uppercase();
    assert!(Context::open(AdapterChoice::Named(&name)).is_ok());
    let unknown = Context::open(AdapterChoice::Named("no such device"));
    assert!(unknown.is_err_and(|e| e.is_device()));
    assert!(adapters().contains(open.description()));
}

#[test]
fn backends_share_a_device_between_threads() {
    let Some(context) = context() else { return };
    let filtered = |seed: u64| {
        let mut gpu = GpuBackend::new(context.clone()).unwrap();
        gpu.prepare(130, 97).unwrap();
        let image = noise(130 * 97, seed);
        let ones = vec![1.0; image.len()];
        gpu.write_images([&image, &ones, &image, &ones]).unwrap();
        gpu.filter(&crate::pipeline::psf::PsfKernel::new(1.5), 6.0, false).unwrap();
        gpu.read_filtered().unwrap().0
    };
    let together: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2).map(|seed| scope.spawn(move || filtered(seed))).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(together, [filtered(0), filtered(1)]);
}
