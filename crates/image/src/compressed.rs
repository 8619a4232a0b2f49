//! Clusters that are compressed: only read here. What is written is not compressed.

use std::io::{self, Read};

use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::error::damaged;

/// Largest window of zstd. QEMU compresses each cluster alone, with a window no larger than it; the
/// standard asks decoders for 8 MiB.
const MAX_WINDOW: u64 = 8 << 20;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Deflate, without zlib's header.
    Zlib,
    Zstd,
}

impl Compression {
    /// Fills `cluster` with what `compressed` begins with; what is behind that is other data.
    ///
    /// # Errors
    /// It is no such data, or shorter than a cluster.
    pub(crate) fn decompress(self, compressed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
        let failed = || damaged("a compressed cluster cannot be decompressed");
        match self {
            Self::Zlib => {
                let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
                let (_, _, length) = decompress(&mut DecompressorOxide::new(), compressed, cluster, 0, flags);
                // Whether more would follow does not matter.
                if length == cluster.len() { Ok(()) } else { Err(failed()) }
            }
            Self::Zstd => {
                let frame: Result<StreamingDecoder<_, FrameDecoder>, _> =
                    StreamingDecoder::new_with_max_window_size(compressed, MAX_WINDOW);
                frame.map_err(|_| failed())?.read_exact(cluster).map_err(|_| failed())
            }
        }
    }
}
