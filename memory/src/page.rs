//! Pages: encoded cells laid end to end, as they travel in gossip and between two nodes that compare notes.
//!
//! A page is read record by record, without an allocation that its sender could choose the size of; a record that is
//! no cell spoils itself only.

use crate::codec::{Encoded, MalformedCell};

/// Bytes of framing around a record: two lengths below 2^21.
const MAX_FRAMING: usize = 6;

/// A page that is being filled.
#[derive(Debug)]
pub(crate) struct Page {
    bytes: Vec<u8>,
    limit: usize,
}

impl Page {
    /// A page of at most `limit` bytes that begins with `header`.
    pub(crate) fn new(header: &[u8], limit: usize) -> Self {
        Self { bytes: header.to_vec(), limit }
    }

    /// Whether the records fit, all together.
    pub(crate) fn fits(&self, records: &[Encoded]) -> bool {
        self.bytes.len() + records.iter().map(size).sum::<usize>() <= self.limit
    }

    /// Adds a record if it fits; returns whether it did.
    pub(crate) fn push(&mut self, record: &Encoded) -> bool {
        let fits = self.bytes.len() + size(record) <= self.limit;
        if fits {
            self.append(record);
        }
        fits
    }

    fn append(&mut self, record: &Encoded) {
        for part in [&record.address, &record.record] {
            push_length(&mut self.bytes, part.len());
            self.bytes.extend_from_slice(part);
        }
    }

    /// Adds records that belong together, all or none. If there is nothing in the page yet they may be longer than it is
    /// to be, up to `longest`.
    pub(crate) fn push_all(&mut self, records: &[Encoded], longest: usize) -> bool {
        let len = records.iter().map(size).sum::<usize>();
        let fits = self.bytes.len() + len <= self.limit || (self.bytes.is_empty() && len <= longest);
        if fits {
            records.iter().for_each(|record| self.append(record));
        }
        fits
    }

    /// Whether records could be pushed together at all.
    pub(crate) fn could_fit(records: &[Encoded], longest: usize) -> bool {
        records.iter().map(size).sum::<usize>() <= longest
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn size(record: &Encoded) -> usize {
    record.address.len() + record.record.len() + MAX_FRAMING
}

// WIRE: lengths are postcard's variable-length integers.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

/// The records of a page, as (address, record). After an error there is no telling where the next one begins.
pub(crate) fn records(mut page: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), MalformedCell>> {
    std::iter::from_fn(move || {
        if page.is_empty() {
            return None;
        }
        match postcard::take_from_bytes::<(&[u8], &[u8])>(page) {
            Ok((record, rest)) => {
                page = rest;
                Some(Ok(record))
            }
            Err(_) => {
                page = &[];
                Some(Err(MalformedCell::Record))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_fits_a_page_comes_out_of_it(parts in vec((vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..300)), 0..20)) {
            let records_in: Vec<Encoded> =
                parts.into_iter().map(|(address, record)| Encoded { address, record }).collect();
            let mut page = Page::new(&[], 4096);
            let fitting: Vec<&Encoded> = records_in.iter().filter(|record| page.push(record)).collect();
            let bytes = page.into_bytes();
            prop_assert!(bytes.len() <= 4096);
            let out: Vec<(&[u8], &[u8])> = records(&bytes).map(Result::unwrap).collect();
            let expected: Vec<(&[u8], &[u8])> =
                fitting.iter().map(|one| (one.address.as_slice(), one.record.as_slice())).collect();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn random_bytes_end(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(records(&bytes).count() <= bytes.len());
        }
    }
}
