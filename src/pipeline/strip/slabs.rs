//! A strip on all cores: slabs of tracks that are too far apart to see each other.

use rayon::prelude::*;

use super::{SPREAD_SIGMAS, STRAY_SIGMAS, Source, Strip, Track};

/// What a source changes and where it may be moved lies within so many PSF widths of it, and a track or two more.
const SEEN_SIGMAS: f64 = SPREAD_SIGMAS + STRAY_SIGMAS;

impl Strip {
    /// Works on sources one after the other, on those of every other slab at once; the same with any number of cores.
    ///
    /// `work` may place a source anew and change the light around it, as far as [`best_near`](Self::best_near) and
    /// [`add`](Self::add) do.
    pub(crate) fn slab_by_slab(&mut self, sources: &mut [Source], work: impl Fn(&mut Self, &mut Source) + Sync) {
        if self.tracks.is_empty() {
            return;
        }
        // Half of a slab of the other kind lies on either side of each.
        let slab = 2 * ((SEEN_SIGMAS * self.sigma_px / self.step_px).ceil() as usize + 2);
        let slab_of: Vec<usize> = sources.iter().map(|s| self.nearest_track(s.across_px) / slab).collect();
        for parity in 0..2 {
            let mut parts: Vec<(Self, Vec<&mut Source>)> = self
                .take_tracks(slab, parity)
                .into_iter()
                .map(|tracks| (Self { tracks, shape: self.shape.clone(), ..*self }, Vec::new()))
                .collect();
            for (source, slab) in sources.iter_mut().zip(&slab_of).filter(|(_, slab)| *slab % 2 == parity) {
                parts[slab / 2].1.push(source);
            }
            parts.par_iter_mut().for_each(|(strip, sources)| sources.iter_mut().for_each(|source| work(strip, source)));
            self.tracks = parts.into_iter().flat_map(|(strip, _)| strip.tracks).collect();
        }
    }

    /// All tracks, in parts that each hold one slab of a parity and half of its neighbours.
    fn take_tracks(&mut self, slab: usize, parity: usize) -> Vec<Vec<Track>> {
        let mut tracks = std::mem::take(&mut self.tracks).into_iter();
        let mut parts = Vec::new();
        let mut n = slab * parity + slab + slab / 2;
        while tracks.len() > 0 {
            parts.push(tracks.by_ref().take(n).collect());
            n = 2 * slab;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::super::Doubt;
    use super::super::sample::{STAR, strip_of};
    use super::*;

    #[test]
    fn slabs_do_not_see_each_other() {
        // Stars in all parts of the slabs, which are 20 tracks wide; none shares light with another.
        let stars: Vec<(f64, f64, f64)> = (-6..=6).map(|k| (20.0, 28.0 * f64::from(k) + 0.4, 3.0)).collect();
        let placed = |in_slabs: bool| {
            let mut strip = strip_of(130, &stars);
            let mut sources: Vec<Source> = stars
                .iter()
                .map(|&(begin_px, across_px, density)| {
                    let (begin_px, across_px) = (begin_px + 1.0, across_px - 1.4);
                    Source { begin_px, across_px, length_px: STAR, density, snr: 0.0 }
                })
                .collect();
            // Beyond the last track.
            sources.push(Source { across_px: 300.0, ..sources[0] });
            let place = |strip: &mut Strip, source: &mut Source| {
                *source = strip.best_near(source, &Doubt::NONE).unwrap_or(*source);
                strip.add(source, -1.0);
            };
            if in_slabs {
                strip.slab_by_slab(&mut sources, place);
            } else {
                sources.iter_mut().for_each(|source| place(&mut strip, source));
            }
            let left: Vec<f32> = strip.tracks.iter().flat_map(|t| t.signal.iter().copied()).collect();
            (sources, left, strip.tracks.iter().map(|t| t.across_px).collect::<Vec<f64>>())
        };
        let (sources, left, across) = placed(true);
        assert_eq!((sources.clone(), left.clone(), across), placed(false));
        assert!(sources.iter().zip(&stars).all(|(s, star)| (s.across_px - star.1).abs() < 0.2), "{sources:?}");
        assert!(left.iter().all(|v| v.abs() < 0.5), "all have been taken out");
    }
}
