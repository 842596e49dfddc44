//! How the fields of a unit show themselves on D-Bus: as a number, a text, a flag, a list, or something of their own.
//!
//! The conversions never fail: a number that does not fit its wire type is clamped, a missing one is the default of
//! the row. What a field means is decided in its row, not here.

use crate::wire::Out;
use muster_manager::state::{ActiveState, Freezer, ServiceSub, SocketSub, UnitResult};
use std::borrow::Cow;

/// Shows itself as an integer.
pub trait Number {
    /// The number, when there is one.
    fn number(&self) -> Option<i128>;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Number for $type {
            fn number(&self) -> Option<i128> { i128::try_from(*self).ok() }
        }
    )*};
}
integers!(u8 u16 u32 u64 usize i8 i16 i32 i64 i128);

impl<T: Number> Number for Option<T> {
    fn number(&self) -> Option<i128> {
        self.as_ref().and_then(Number::number)
    }
}

impl<T: Number> Number for &T {
    fn number(&self) -> Option<i128> {
        (*self).number()
    }
}

/// The number in the type of the wire, clamped; 0 when there is none.
pub fn narrow<T: TryFrom<i128> + Bounds>(number: Option<i128>) -> T {
    let number = number.unwrap_or(0);
    T::try_from(number).unwrap_or(if number < 0 { T::LEAST } else { T::MOST })
}

/// The ends of a wire type.
pub trait Bounds {
    /// The lowest value.
    const LEAST: Self;
    /// The highest value.
    const MOST: Self;
}
macro_rules! bounds {
    ($($type:ty)*) => {$( impl Bounds for $type { const LEAST: Self = <$type>::MIN; const MOST: Self = <$type>::MAX; } )*};
}
bounds!(u8 u16 u32 u64 i32 i64);

/// A number, or the row's default where there is none.
pub fn or<T: Number + ?Sized>(value: &T, default: i128) -> i128 {
    value.number().unwrap_or(default)
}

/// What "no limit" and "not set" are on the wire.
pub const UNSET: i128 = u64::MAX as i128;

/// Shows itself as a text.
pub trait Text {
    /// The text; empty for none.
    fn text(&self) -> Cow<'_, str>;
}

impl Text for str {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}
impl Text for String {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}
impl Text for Cow<'_, str> {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}
impl<T: Text + ?Sized> Text for &T {
    fn text(&self) -> Cow<'_, str> {
        (**self).text()
    }
}
impl<T: Text> Text for Option<T> {
    fn text(&self) -> Cow<'_, str> {
        self.as_ref().map_or(Cow::Borrowed(""), Text::text)
    }
}

macro_rules! words {
    ($($type:ty)*) => {$(
        impl Text for $type {
            fn text(&self) -> Cow<'_, str> { Cow::Borrowed(self.as_str()) }
        }
    )*};
}
impl<const FROM: i32, const TO: i32> Number for muster_unit::setting::Within<FROM, TO> {
    fn number(&self) -> Option<i128> {
        Some(i128::from(self.0))
    }
}
impl Number for muster_unit::Timespan {
    fn number(&self) -> Option<i128> {
        Some(i128::from(self.0))
    }
}

words!(ActiveState Freezer ServiceSub SocketSub UnitResult muster_unit::UnitName);
words!(muster_unit::setting::Account muster_unit::AbsolutePath muster_unit::setting::InterfaceName);

/// What reads as a text.
macro_rules! derefs {
    ($($type:ident)*) => {$(
        impl Text for muster_unit::$type {
            fn text(&self) -> Cow<'_, str> { Cow::Borrowed(self) }
        }
    )*};
}
derefs!(PidFilePath VariableName VariableMatch Reference BusName LogNamespace CgroupName);

/// A text, or the row's default where it is empty.
pub fn word<'a, T: Text + ?Sized>(value: &'a T, default: &'static str) -> Cow<'a, str> {
    let text = value.text();
    if text.is_empty() { Cow::Borrowed(default) } else { text }
}

/// Shows itself as a boolean.
pub trait Flag {
    /// The value as a boolean.
    fn flag(&self) -> bool;
}
impl Flag for bool {
    fn flag(&self) -> bool {
        *self
    }
}
impl<T: Flag> Flag for &T {
    fn flag(&self) -> bool {
        (**self).flag()
    }
}

/// Shows itself as a list of texts.
pub trait Texts {
    /// Writes the list.
    fn texts(&self, out: &mut Out<'_>);
}
impl<T: Text> Texts for Vec<T> {
    fn texts(&self, out: &mut Out<'_>) {
        out.strings(self.iter().map(Text::text));
    }
}
impl<T: Text> Texts for [T] {
    fn texts(&self, out: &mut Out<'_>) {
        out.strings(self.iter().map(Text::text));
    }
}
impl<T: Text, const N: usize> Texts for [T; N] {
    fn texts(&self, out: &mut Out<'_>) {
        out.strings(self.iter().map(Text::text));
    }
}
impl<T: Texts + ?Sized> Texts for &T {
    fn texts(&self, out: &mut Out<'_>) {
        (**self).texts(out);
    }
}
/// The empty list.
impl Texts for () {
    fn texts(&self, out: &mut Out<'_>) {
        out.strings(std::iter::empty::<&str>());
    }
}

/// Shows itself as something of its own.
pub trait Emit {
    /// Writes a value of exactly `signature`.
    fn emit(self, signature: &'static str, out: &mut Out<'_>);
}

/// An array of no elements.
pub struct Empty;
impl Emit for Empty {
    fn emit(self, signature: &'static str, out: &mut Out<'_>) {
        out.array(signature.get(1..).unwrap_or("s"), |_| {});
    }
}

/// Whatever the closure writes.
pub struct With<F>(pub F);
impl<F: FnOnce(&mut Out<'_>)> Emit for With<F> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        (self.0)(out);
    }
}

/// One element of the array for each item: the closure writes it.
pub struct Each<I, F>(pub I, pub F);
impl<I: IntoIterator, F: Fn(I::Item, &mut Out<'_>)> Emit for Each<I, F> {
    fn emit(self, signature: &'static str, out: &mut Out<'_>) {
        out.array(signature.get(1..).unwrap_or("s"), |out| {
            for item in self.0 {
                (self.1)(item, out);
            }
        });
    }
}

/// Texts one by one.
pub fn strs(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str)
}

/// Raw bytes, `ay`.
impl Emit for &[u8] {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        out.array("y", |out| self.iter().for_each(|byte| out.u8(*byte)));
    }
}

/// 32 hex digits as 16 bytes; anything else as none.
pub struct HexId<'a>(pub &'a str);
impl Emit for HexId<'_> {
    fn emit(self, signature: &'static str, out: &mut Out<'_>) {
        let bytes: Vec<u8> = self
            .0
            .as_bytes()
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.as_slice().emit(signature, out);
    }
}

/// `(bas)`: true for a list of what is allowed.
pub struct Listed<'a>(pub &'a muster_unit::AllowList);
impl Emit for Listed<'_> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        out.structure(|out| {
            out.bool(self.0.allow);
            out.strings(&self.0.names);
        });
    }
}
