// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON, written piece by piece: nothing is kept but one buffer, so nothing must be allocated.

use std::fmt::{self, Write};

use crate::error::Result;

/// What is told of is written here.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// A value that is no object and no list.
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(i128),
    Text(&'a str),
    /// A text: readers that keep numbers as doubles would lose its low bits.
    Hex(u64),
}

/// A document that is being written. The first error ends it, and is told at the end.
pub(crate) struct Json<'a> {
    sink: Sink<'a>,
    buffer: [u8; 4096],
    filled: usize,
    result: Result<()>,
    /// Something stands before in the innermost object or list.
    wants_comma: bool,
}

impl<'a> Json<'a> {
    /// Writes a document: an object, that `body` fills.
    pub fn document(sink: Sink<'a>, body: impl FnOnce(&mut Self)) -> Result<()> {
        let (buffer, result) = ([0; 4096], Ok(()));
        let mut json = Json { sink, buffer, filled: 0, result, wants_comma: false };
        json.nest("{", "}", body);
        json.put(b"\n");
        json.flush();
        json.result
    }

    pub fn field<'b>(&mut self, key: &str, value: impl Into<Scalar<'b>>) {
        self.key(key);
        self.scalar(&value.into());
    }

    pub fn object(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        self.key(key);
        self.nest("{", "}", body);
    }

    /// A list of objects, each filled by `body`.
    pub fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut body: impl FnMut(&mut Self, T),
    ) {
        self.key(key);
        self.nest("[", "]", |json| {
            for item in items {
                json.separate();
                json.nest("{", "}", |json| body(json, item));
            }
        });
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.text(key);
        self.put(b":");
    }

    fn nest(&mut self, open: &str, close: &str, body: impl FnOnce(&mut Self)) {
        self.put(open.as_bytes());
        self.wants_comma = false;
        body(self);
        self.put(close.as_bytes());
        self.wants_comma = true;
    }

    fn separate(&mut self) {
        if self.wants_comma {
            self.put(b",");
        }
        self.wants_comma = true;
    }

    fn scalar(&mut self, value: &Scalar<'_>) {
        // Writing to a buffer does not fail here; what fails later is in `result`.
        let _ = match value {
            Scalar::Null => self.write_str("null"),
            Scalar::Bool(value) => write!(self, "{value}"),
            Scalar::Number(value) => write!(self, "{value}"),
            Scalar::Hex(value) => write!(self, "\"{value:#x}\""),
            Scalar::Text(text) => {
                self.text(text);
                Ok(())
            }
        };
    }

    /// RFC 8259, 7: quotes, backslashes and control characters are escaped.
    fn text(&mut self, text: &str) {
        self.put(b"\"");
        for character in text.chars() {
            let _ = match character {
                '"' | '\\' => write!(self, "\\{character}"),
                '\0'..='\x1f' => write!(self, "\\u{:04x}", u32::from(character)),
                _ => self.write_char(character),
            };
        }
        self.put(b"\"");
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let n = room.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled = self.filled.saturating_add(n);
            bytes = later;
            if self.filled >= self.buffer.len() {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        if self.result.is_ok() && !filled.is_empty() {
            self.result = (self.sink)(filled);
        }
        self.filled = 0;
    }
}

impl Write for Json<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

impl From<bool> for Scalar<'_> {
    fn from(value: bool) -> Self {
        Scalar::Bool(value)
    }
}

impl<'a> From<&'a str> for Scalar<'a> {
    fn from(value: &'a str) -> Self {
        Scalar::Text(value)
    }
}

impl<'a, T: Into<Scalar<'a>>> From<Option<T>> for Scalar<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Scalar::Null, Into::into)
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl From<$type> for Scalar<'_> {
            fn from(value: $type) -> Self {
                Scalar::Number(i128::from(value))
            }
        })*
    };
}
numbers!(i32, u32, u64);

impl From<usize> for Scalar<'_> {
    fn from(value: usize) -> Self {
        Scalar::Number(value as i128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn written(body: impl FnOnce(&mut Json<'_>)) -> String {
        let mut text = Vec::new();
        let mut sink = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        Json::document(&mut sink, body).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_stand_where_they_belong() {
        let text = written(|json| {
            json.field("n", 1u32);
            json.object("o", |json| json.field("none", None::<u32>));
            json.list("l", [true, false], |json, it| json.field("b", it));
            json.list("e", [0; 0], |_, _| {});
            json.field("x", Scalar::Hex(u64::MAX));
            json.field("m", -5);
        });
        let want = "{\"n\":1,\"o\":{\"none\":null},\"l\":[{\"b\":true},{\"b\":false}],\"e\":[],\
                    \"x\":\"0xffffffffffffffff\",\"m\":-5}\n";
        assert_eq!(text, want);
    }

    #[test]
    fn what_would_end_a_text_is_escaped() {
        let text = written(|json| json.field("name", "a\"b\\c\n\0\u{1b}\u{7f}é</script>"));
        assert_eq!(text, "{\"name\":\"a\\\"b\\\\c\\u000a\\u0000\\u001b\u{7f}é</script>\"}\n");
    }

    #[test]
    fn a_long_document_comes_in_pieces_and_an_error_ends_it() {
        let long = "x".repeat(10_000);
        assert_eq!(written(|json| json.field("long", long.as_str())).len(), 10_000 + 12);
        let mut pieces = 0;
        let mut sink = |_: &[u8]| {
            pieces += 1;
            Err(Error::new(libc::EPIPE, "full"))
        };
        let result = Json::document(&mut sink, |json| json.field("long", long.as_str()));
        assert_eq!(result.unwrap_err().errno(), libc::EPIPE);
        assert_eq!(pieces, 1);
    }
}
