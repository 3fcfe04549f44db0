//! Names of new objects.

use uuid::Uuid;

/// Digits in the order of their bytes. Without `V`: the SDK takes a container whose id ends in it for a sandbox.
const DIGITS: &[u8; 61] = b"0123456789ABCDEFGHIJKLMNOPQRSTUWXYZabcdefghijklmnopqrstuvwxyz";
/// As many as the SDK's commands know an id by; a UUID fits.
const LENGTH: usize = 22;

/// A fresh object id such as `fu-…`. Ids of one kind sort in the order of their creation.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", digits(Uuid::now_v7().as_u128()))
}

fn digits(mut number: u128) -> String {
    let base = DIGITS.len() as u128;
    let mut digits = [DIGITS[0]; LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % base) as usize];
        number /= base;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// An unguessable token of 256 bits, in hex.
pub fn new_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// The id of the blob with these contents.
pub fn blob_id(sha256_hex: &str) -> String {
    format!("bl-{sha256_hex}")
}

/// The hash of the contents of a blob.
pub fn blob_hash(blob_id: &str) -> Option<&str> {
    blob_id.strip_prefix("bl-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_preserve_the_order_of_numbers() {
        let numbers = [0, 1, 60, 61, 1 << 100, u128::MAX - 1, u128::MAX];
        assert!(numbers.map(digits).is_sorted());
        assert_eq!([digits(0), digits(61)], ["0".repeat(22), format!("{}10", "0".repeat(20))]);
        assert!(digits(u128::MAX).starts_with(|first| first != '0'), "all of it fits");
    }
}
