//! The GPU backend: every stage in compute shaders through wgpu, on Vulkan, Metal or DX12.
//!
//! Shaders keep to the limits every WebGPU device has. Results are the same in every run on one device: sums have a
//! fixed order, and lists that grow in no order are sorted here.

mod background;
mod clock;
mod commands;
mod compact;
mod context;
mod filter;
mod fit;
mod ingest;
mod kernel;
mod profile;
mod radon;
#[cfg(test)]
mod shaders;
mod trail;

use std::sync::Arc;

use self::commands::Recorder;
use self::compact::DeviceSource;
pub(crate) use self::context::adapters;
pub(in crate::backend) use self::context::{AdapterChoice, Context};
use self::ingest::RawBuffers;
use self::kernel::{AppendList, Buffer, Kernel};
use self::radon::RadonBuffers;
use crate::Result;
use crate::backend::{Backend, TileSource, TrackProfile};
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest};
use crate::pipeline::segments::{SegmentSet, most_kept};
use crate::pipeline::weigh::{CompactSource, Footprint};

/// Invocations of a workgroup of kernels that work pixel by pixel along a row.
const IMAGE_WORKGROUP: u32 = 256;

/// Compact sources there is room for at first.
const FIRST_SOURCES: usize = 1 << 12;

/// Most nodes of a kept level (768 MiB; the search holds two such buffers, four where pixels are masked), however large
/// the device's buffers may be: a frame of 8192² is not cut.
const MAX_NODES: u64 = 3 << 26;

/// An open device, which makes backends that share it.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    context: Arc<Context>,
}

impl Engine {
    /// The best GPU that is not a software driver.
    pub(crate) fn open_hardware() -> Result<Self> {
        Self::open(AdapterChoice::Hardware)
    }

    /// The best GPU, a software driver if there is no other.
    pub(crate) fn open_any() -> Result<Self> {
        Self::open(AdapterChoice::Any)
    }

    /// The best GPU whose name contains this, upper and lower case alike.
    pub(crate) fn open_named(part: &str) -> Result<Self> {
        Self::open(AdapterChoice::Named(part))
    }

    fn open(choice: AdapterChoice<'_>) -> Result<Self> {
        Ok(Self { context: Context::open(choice)? })
    }

    pub(crate) fn name(&self) -> &str {
        &self.context.description().name
    }

    pub(crate) fn backend(&self) -> Result<Box<dyn Backend>> {
        Ok(Box::new(GpuBackend::new(self.context.clone())?))
    }
}

/// The frame being worked on, in the device's memory.
#[derive(Debug)]
pub(crate) struct GpuBackend {
    context: Arc<Context>,
    width: usize,
    height: usize,
    /// Pixel values, then residuals above the sky.
    residual: Buffer,
    /// Inverse variance; 0 missing, negative saturated.
    weight: Buffer,
    /// PSF-filtered residual / noise.
    filtered: Buffer,
    /// Fraction of the filtered noise variance that comes from usable pixels.
    coverage: Buffer,
    /// Filtered image and coverage between the two passes of the filter; both turned over for the transform.
    scratch: [Buffer; 2],
    raw: RawBuffers,
    radon: RadonBuffers,
    sources: AppendList<DeviceSource>,
    /// What a stage needs only while it runs: small tables up, results down.
    small: Buffer,
    lists: [Buffer; 2],
    recorder: Recorder,
}

impl GpuBackend {
    /// A backend with buffers of its own on a device that others may share.
    pub(crate) fn new(context: Arc<Context>) -> Result<Self> {
        let buffer = |label| Buffer::new(&context, label);
        Ok(Self {
            width: 0,
            height: 0,
            residual: buffer("residual image")?,
            weight: buffer("weight image")?,
            filtered: buffer("filtered image")?,
            coverage: buffer("coverage image")?,
            scratch: [buffer("scratch")?, buffer("scratch")?],
            raw: RawBuffers::new(&context)?,
            radon: RadonBuffers::new(&context)?,
            sources: AppendList::new(&context, "source", FIRST_SOURCES)?,
            small: buffer("table")?,
            lists: [buffer("list")?, buffer("list")?],
            recorder: Recorder::new(&context)?,
            context,
        })
    }

    /// So much room, and no more, for places where peaks may be: so that tests see it grow.
    #[cfg(test)]
    pub(in crate::backend) fn with_room_for_places(mut self, places: usize) -> Self {
        self.radon.most_places = places;
        self
    }

    #[cfg(test)]
    pub(in crate::backend) fn room_for_places(&self) -> usize {
        self.radon.most_places
    }

    /// Workgroups for one invocation per pixel: along the rows, and one row each.
    fn image_groups(&self, kernel: &Kernel) -> [u32; 3] {
        [kernel.groups(self.width), self.height as u32, 1]
    }
}

impl Backend for GpuBackend {
    fn task_size(&self) -> (usize, usize) {
        // The fewer and larger the dispatches, the better.
        (1, (self.context.max_buffer_bytes() / size_of::<f32>() as u64).min(MAX_NODES) as usize)
    }

    fn frame_bytes(&self, width: usize, height: usize) -> u64 {
        // Six images, the raw pixels and their mask, and four levels of the transform: two of them for the weights where
        // pixels are masked.
        let pixels = (width * height * size_of::<f32>()) as u64;
        let nodes = most_kept(width, height).min(self.task_size().1);
        8 * pixels + 4 * (nodes * size_of::<f32>()) as u64
    }

    fn take_kernel_times(&mut self) -> Result<Vec<(&'static str, f64)>> {
        self.recorder.clock.as_mut().map_or(Ok(Vec::new()), |clock| Ok(clock.read(&self.context)?.take()))
    }

    fn prepare(&mut self, width: usize, height: usize) -> Result<()> {
        if (width, height) != (self.width, self.height) {
            self.recorder.forget_buffers();
        }
        let images = [&mut self.residual, &mut self.weight, &mut self.filtered, &mut self.coverage];
        for image in images.into_iter().chain(&mut self.scratch) {
            image.reserve::<f32>(&self.context, width * height)?;
        }
        (self.width, self.height) = (width, height);
        Ok(())
    }

    fn ingest(&mut self, frame: &Frame<'_>) -> Result<()> {
        self.convert(frame)
    }

    fn tile_statistics(&mut self, mesh: Mesh, source: TileSource) -> Result<Vec<TileStatistics>> {
        self.measure_tiles(mesh, source)
    }

    fn normalise(&mut self, map: &BackgroundMap) -> Result<()> {
        self.subtract_background(map)
    }

    fn take_off_lines(&mut self, lines: &Lines) -> Result<()> {
        self.subtract_lines(lines)
    }

    fn weigh_out_hot(&mut self, threshold: f32, ratio: f32) -> Result<()> {
        self.weigh_out_lone_pixels(threshold, ratio)
    }

    fn filter(&mut self, kernel: &PsfKernel, clip: f32, with_saturated: bool) -> Result<()> {
        self.convolve(kernel, clip, with_saturated)
    }

    fn find_compact(&mut self, threshold: f32, wing_level: f32) -> Result<Vec<CompactSource>> {
        self.list_compact(threshold, wing_level)
    }

    fn weigh_out(&mut self, footprints: &[Footprint]) -> Result<()> {
        self.weigh_out_footprints(footprints)
    }

    fn find_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>> {
        self.list_peaks(segments, request)
    }

    fn profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>> {
        self.sum_profiles(tracks, sigma_eff_px)
    }

    fn fit(&mut self, requests: &[FitRequest], settings: &FitSettings) -> Result<Vec<TrailFit>> {
        self.fit_trails(requests, settings)
    }

    fn add_trails(&mut self, trails: &[Trail], factor: f32) -> Result<()> {
        self.add_models(trails, factor)
    }

    #[cfg(test)]
    fn read_images(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        let n = self.width * self.height;
        Ok((self.residual.read(&self.context, n)?, self.weight.read(&self.context, n)?))
    }

    #[cfg(test)]
    fn read_filtered(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        let n = self.width * self.height;
        Ok((self.filtered.read(&self.context, n)?, self.coverage.read(&self.context, n)?))
    }

    #[cfg(test)]
    fn write_images(&mut self, images: [&[f32]; 4]) -> Result<()> {
        let places = [&mut self.residual, &mut self.weight, &mut self.filtered, &mut self.coverage];
        places.into_iter().zip(images).try_for_each(|(place, image)| place.upload(&self.context, image))
    }
}
