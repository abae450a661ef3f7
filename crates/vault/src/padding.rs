//! Removes the padding of a sealed value. It hides the length of the value, which encryption does not.

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::open::Unopenable;

/// The byte between the value and the zero bytes.
const END: u8 = 0x80;

/// The length of a short value with its padding.
const SHORT: usize = 48;

/// A longer value is padded to a multiple of this length.
const STEP: usize = 64;

/// Returns the value before the padding: `value || 0x80 || 0 …`, in the only length that ingest pads this value to.
///
/// # Errors
///
/// [`Unopenable`]: the padding is another, or the value is not text.
pub fn remove(padded: &Zeroizing<Vec<u8>>) -> Result<SecretString, Unopenable> {
    let end = padded.iter().rposition(|byte| *byte != 0).ok_or(Unopenable)?;
    if padded[end] != END || padded.len() != padded_length(end) {
        return Err(Unopenable);
    }
    let value = str::from_utf8(&padded[..end]).map_err(|_| Unopenable)?;
    Ok(value.into())
}

/// Returns the length of a value of this length with its padding.
fn padded_length(length: usize) -> usize {
    if length < SHORT { SHORT } else { (length / STEP + 1) * STEP }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn removed(padded: &[u8]) -> Result<String, Unopenable> {
        remove(&Zeroizing::new(padded.to_vec())).map(|value| value.expose_secret().to_owned())
    }

    /// Pads to any length.
    fn padded(value: &str, length: usize) -> Vec<u8> {
        let mut padded = [value.as_bytes(), &[END]].concat();
        padded.resize(length, 0);
        padded
    }

    #[test]
    fn each_length_has_one_padding() {
        for (length, padded) in
            [(0, 48), (1, 48), (47, 48), (48, 64), (63, 64), (64, 128), (127, 128), (128, 192), (3000, 3008)]
        {
            assert_eq!(padded_length(length), padded, "{length}");
        }
    }

    #[test]
    fn other_padding_is_refused() {
        for bad in [
            &[][..],
            &[0; 48],
            &[END; 47],
            &padded("192.0.2.1", 47),
            &padded("192.0.2.1", 49),
            &padded("192.0.2.1", 64),
            &padded("192.0.2.1", 128),
            &padded(&"1".repeat(47), 64),
            &padded(&"1".repeat(48), 128),
            &[&b"192.0.2.1"[..], &[1], &[0; 38]].concat(),
            &[&b"192.0.2.1"[..], &[END], &[0; 37], &[1]].concat(),
            &[&[0xff][..], &[END], &[0; 46]].concat(),
        ] {
            assert_eq!(removed(bad), Err(Unopenable), "{} bytes", bad.len());
        }
    }

    proptest! {
        #[test]
        fn padded_values_come_back(value in ".{0,100}") {
            prop_assert_eq!(removed(&padded(&value, padded_length(value.len()))), Ok(value));
        }
    }
}
