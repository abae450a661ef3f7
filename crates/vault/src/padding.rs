//! Removes the padding of a sealed value. The padding hides the length of the value, which encryption does not.

use login::pii::sealer::{END_OF_VALUE, padded_length};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::open::Unopenable;

/// Returns the value before the padding: `value || 0x80 || 0 …`, in the only length that ingest pads this value to.
///
/// # Errors
///
/// [`Unopenable`]: the padding is another, or the value is not text.
pub fn remove(padded: &Zeroizing<Vec<u8>>) -> Result<SecretString, Unopenable> {
    let end = padded.iter().rposition(|byte| *byte != 0).ok_or(Unopenable)?;
    if padded[end] != END_OF_VALUE || padded.len() != padded_length(end) {
        return Err(Unopenable);
    }
    let value = str::from_utf8(&padded[..end]).map_err(|_| Unopenable)?;
    Ok(value.into())
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
        let mut padded = [value.as_bytes(), &[END_OF_VALUE]].concat();
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
            &[END_OF_VALUE; 47],
            &padded("192.0.2.1", 47),
            &padded("192.0.2.1", 49),
            &padded("192.0.2.1", 64),
            &padded("192.0.2.1", 128),
            &padded(&"1".repeat(47), 64),
            &padded(&"1".repeat(48), 128),
            &[&b"192.0.2.1"[..], &[1], &[0; 38]].concat(),
            &[&b"192.0.2.1"[..], &[END_OF_VALUE], &[0; 37], &[1]].concat(),
            &[&[0xff][..], &[END_OF_VALUE], &[0; 46]].concat(),
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
