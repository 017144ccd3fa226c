//! The CPU backend: complete, on all cores, nothing to install.

mod background;
mod compact;
mod filter;
mod fit;
mod ingest;
mod model;
mod profile;
mod radon;
mod stamp;
mod tiles;
mod trail;

use rayon::prelude::*;

use self::stamp::Stamp;
use crate::Result;
use crate::backend::{Backend, TileSource, TrackProfile};
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::weigh::{CompactSource, Footprint};

/// An image-sized array with its shape.
#[derive(Debug, Clone, Default)]
struct Image {
    width: usize,
    height: usize,
    data: Vec<f32>,
}

impl Image {
    /// Takes on a shape; what the pixels hold is left open.
    fn reshape(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        if self.data.len() != width * height {
            self.data = vec![0.0; width * height];
        }
    }
}

/// The frame being worked on, in main memory.
#[derive(Debug, Default)]
pub(crate) struct CpuBackend {
    /// Pixel values, then residuals above the sky.
    residual: Image,
    /// Inverse variance; 0 missing, negative saturated.
    weight: Image,
    /// PSF-filtered residual / noise.
    filtered: Image,
    /// Fraction of the filtered noise variance that comes from usable pixels; made when it is asked for.
    coverage: Image,
    /// How the filtered image was made whose coverage has not been.
    filtered_with: Option<(PsfKernel, bool)>,
    radon: radon::Scratch,
}

impl CpuBackend {
    /// Makes the coverage of the filtered image, where that has not been done.
    fn cover(&mut self) {
        if let Some((kernel, with_saturated)) = self.filtered_with.take() {
            filter::coverage(&self.weight, &kernel, with_saturated, &mut self.coverage);
        }
    }
}

impl Backend for CpuBackend {
    fn task_size(&self) -> (usize, usize) {
        // The transform cuts its work itself.
        (1, usize::MAX)
    }

    fn frame_bytes(&self, width: usize, height: usize) -> u64 {
        // Four images, and the last short level of the transform for values and for weights.
        let pixels = (width * height * size_of::<f32>()) as u64;
        4 * pixels + 2 * radon::Scratch::bytes(width, height)
    }

    fn prepare(&mut self, width: usize, height: usize) -> Result<()> {
        for image in [&mut self.residual, &mut self.weight, &mut self.filtered, &mut self.coverage] {
            image.reshape(width, height);
        }
        Ok(())
    }

    fn ingest(&mut self, frame: &Frame<'_>) -> Result<()> {
        ingest::ingest(frame, &mut self.residual.data, &mut self.weight.data);
        Ok(())
    }

    fn tile_statistics(&mut self, mesh: Mesh, source: TileSource) -> Result<Vec<TileStatistics>> {
        let image = match source {
            TileSource::Values => &self.residual,
            TileSource::Filtered => &self.filtered,
        };
        Ok(tiles::tile_statistics(&image.data, &self.weight.data, mesh))
    }

    fn normalise(&mut self, map: &BackgroundMap) -> Result<()> {
        background::normalise(&mut self.residual.data, &mut self.weight.data, map);
        Ok(())
    }

    fn take_off_lines(&mut self, lines: &Lines) -> Result<()> {
        background::take_off_lines(&mut self.residual, &mut self.weight, lines);
        Ok(())
    }

    fn weigh_out_hot(&mut self, threshold: f32, ratio: f32) -> Result<()> {
        compact::weigh_out_hot(&self.residual, &mut self.weight, threshold, ratio);
        Ok(())
    }

    fn filter(&mut self, kernel: &PsfKernel, clip: f32, with_saturated: bool) -> Result<()> {
        filter::filter(&self.residual, &self.weight, kernel, clip, with_saturated, &mut self.filtered);
        self.filtered_with = Some((kernel.clone(), with_saturated));
        Ok(())
    }

    fn find_compact(&mut self, threshold: f32, wing_level: f32) -> Result<Vec<CompactSource>> {
        Ok(compact::find_compact(&self.filtered, &self.residual.data, &self.weight.data, threshold, wing_level))
    }

    fn weigh_out(&mut self, footprints: &[Footprint]) -> Result<()> {
        compact::weigh_out(&mut self.weight, footprints);
        Ok(())
    }

    fn find_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>> {
        if request.weighted {
            self.cover();
        }
        Ok(self.radon.find_peaks(&self.filtered, &self.coverage, segments, request))
    }

    fn profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>> {
        let (residual, weight) = (&self.residual, &self.weight);
        Ok(profile::profiles(residual, weight, tracks, sigma_eff_px))
    }

    fn fit(&mut self, requests: &[FitRequest], settings: &FitSettings) -> Result<Vec<TrailFit>> {
        let (residual, weight) = (&self.residual, &self.weight);
        let fit = |stamp: &mut Stamp, request| fit::fit(residual, weight, request, settings, stamp);
        Ok(requests.par_iter().map_init(Stamp::default, fit).collect())
    }

    fn add_trails(&mut self, trails: &[Trail], factor: f32) -> Result<()> {
        trail::add(&mut self.residual, trails, factor);
        Ok(())
    }

    #[cfg(all(test, feature = "gpu"))]
    fn read_images(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((self.residual.data.clone(), self.weight.data.clone()))
    }

    #[cfg(all(test, feature = "gpu"))]
    fn read_filtered(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        self.cover();
        Ok((self.filtered.data.clone(), self.coverage.data.clone()))
    }

    #[cfg(all(test, feature = "gpu"))]
    fn write_images(&mut self, images: [&[f32]; 4]) -> Result<()> {
        let places = [&mut self.residual, &mut self.weight, &mut self.filtered, &mut self.coverage];
        places.into_iter().zip(images).for_each(|(place, image)| place.data.copy_from_slice(image));
        self.filtered_with = None;
        Ok(())
    }
}
