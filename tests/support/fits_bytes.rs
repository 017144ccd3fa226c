//! FITS files made byte by byte, without the library that reads them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder that goes away with its owner.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("skystreak-fits-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One HDU: a header and its data, both padded to blocks.
pub struct Hdu {
    cards: Vec<String>,
    data: Vec<u8>,
}

impl Hdu {
    /// A primary image; `axes` in FITS order, `data` big-endian.
    pub fn primary(bitpix: i32, axes: &[usize], data: Vec<u8>) -> Self {
        Self::image("SIMPLE  =                    T", bitpix, axes, data)
    }

    /// An image extension.
    pub fn extension(name: &str, bitpix: i32, axes: &[usize], data: Vec<u8>) -> Self {
        Self::image("XTENSION= 'IMAGE   '", bitpix, axes, data)
            .key("PCOUNT", "0")
            .key("GCOUNT", "1")
            .key("EXTNAME", &format!("'{name}'"))
    }

    /// A primary HDU without data.
    pub fn empty() -> Self {
        Self::primary(8, &[], vec![])
    }

    /// A binary table of one column of 32-bit integers.
    pub fn table(rows: &[i32]) -> Self {
        let data = rows.iter().flat_map(|v| v.to_be_bytes()).collect();
        Self::image("XTENSION= 'BINTABLE'", 8, &[4, rows.len()], data)
            .key("PCOUNT", "0")
            .key("GCOUNT", "1")
            .key("TFIELDS", "1")
            .key("TFORM1", "'J       '")
    }

    /// A tile-compressed image of floats: one tile, gzipped integers `q` for values `scale * q + zero`, the smallest
    /// integer for missing pixels.
    pub fn quantised(scale: f64, zero: f64, [width, height]: [usize; 2], quantised: &[i32]) -> Self {
        let heap = gzip_stored(&quantised.iter().flat_map(|q| q.to_be_bytes()).collect::<Vec<_>>());
        let mut data = Vec::new();
        // The row: length and place of the tile in the heap, then its scale and zero.
        data.extend([heap.len() as i32, 0].iter().flat_map(|v| v.to_be_bytes()));
        data.extend([scale, zero].iter().flat_map(|v| v.to_be_bytes()));
        data.extend(&heap);
        let mut hdu = Self::image("XTENSION= 'BINTABLE'", 8, &[24, 1], data);
        for (name, value) in [
            ("PCOUNT", heap.len().to_string()),
            ("GCOUNT", "1".into()),
            ("TFIELDS", "3".into()),
            ("TTYPE1", "'COMPRESSED_DATA'".into()),
            ("TFORM1", format!("'1PB({})'", heap.len())),
            ("TTYPE2", "'ZSCALE  '".into()),
            ("TFORM2", "'1D      '".into()),
            ("TTYPE3", "'ZZERO   '".into()),
            ("TFORM3", "'1D      '".into()),
            ("ZIMAGE", "T".into()),
            ("ZBITPIX", "-32".into()),
            ("ZNAXIS", "2".into()),
            ("ZNAXIS1", width.to_string()),
            ("ZNAXIS2", height.to_string()),
            ("ZTILE1", width.to_string()),
            ("ZTILE2", height.to_string()),
            ("ZCMPTYPE", "'GZIP_1  '".into()),
            ("ZQUANTIZ", "'NO_DITHER'".into()),
            ("ZBLANK", i32::MIN.to_string()),
        ] {
            hdu = hdu.key(name, &value);
        }
        hdu
    }

    fn image(first_card: &str, bitpix: i32, axes: &[usize], data: Vec<u8>) -> Self {
        let hdu = Self { cards: vec![first_card.into()], data };
        let hdu = hdu.key("BITPIX", &bitpix.to_string()).key("NAXIS", &axes.len().to_string());
        axes.iter().enumerate().fold(hdu, |hdu, (i, n)| hdu.key(&format!("NAXIS{}", i + 1), &n.to_string()))
    }

    /// Adds a card; text values come with their quotes.
    pub fn key(mut self, name: &str, value: &str) -> Self {
        self.cards.push(if value.starts_with('\'') {
            format!("{name:<8}= {value:<20}")
        } else {
            format!("{name:<8}= {value:>20}")
        });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header: Vec<u8> = self.cards.iter().flat_map(|card| format!("{card:<80}").into_bytes()).collect();
        header.extend(format!("{:<80}", "END").bytes());
        header.resize(header.len().next_multiple_of(2880), b' ');
        let mut data = self.data.clone();
        data.resize(data.len().next_multiple_of(2880), 0);
        header.extend(data);
        header
    }
}

/// Wraps bytes in gzip without compressing them.
pub fn gzip_stored(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = data.chunks(60_000).peekable();
    while let Some(block) = blocks.next() {
        bytes.push(u8::from(blocks.peek().is_none()));
        bytes.extend((block.len() as u16).to_le_bytes());
        bytes.extend((!(block.len() as u16)).to_le_bytes());
        bytes.extend(block);
    }
    let crc = data.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    });
    bytes.extend((!crc).to_le_bytes());
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes
}

/// Big-endian bytes of a list of numbers.
#[macro_export]
macro_rules! big_endian {
    ($values:expr) => {
        $values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>()
    };
}
