//! Values picked out of rows: a branch for each would be guessed wrong too often.

/// Values that are looked at together.
pub(super) const ROW: usize = 16;

/// Values that wait to be taken over together.
const WAITING: usize = 128;

/// Values picked so far; they are at the end of `out` once it is finished.
#[derive(Debug)]
pub(super) struct Picked<'a> {
    out: &'a mut Vec<f32>,
    waiting: [f32; WAITING],
    n: usize,
}

impl<'a> Picked<'a> {
    #[inline(always)]
    pub(super) fn to(out: &'a mut Vec<f32>) -> Self {
        Self { out, waiting: [0.0; WAITING], n: 0 }
    }

    /// Takes those of up to [`ROW`] values that are wanted.
    #[inline(always)]
    pub(super) fn pick(&mut self, values: impl Iterator<Item = (f32, bool)>) {
        if self.n > WAITING - ROW {
            self.take_over();
        }
        for (value, is_wanted) in values {
            self.waiting[self.n % WAITING] = value;
            self.n += usize::from(is_wanted);
        }
    }

    #[inline(always)]
    pub(super) fn finish(mut self) {
        self.take_over();
    }

    #[inline(always)]
    fn take_over(&mut self) {
        self.out.extend_from_slice(&self.waiting[..self.n]);
        self.n = 0;
    }
}
