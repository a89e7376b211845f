//! Shapes with dimensions that are not known before inference.

use std::fmt;

use smallvec::SmallVec;

use super::Shape;

/// One dimension: known, or an interval, optionally with the symbol that makes it equal to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dimension {
    min: usize,
    max: usize,
    symbol: u32,
}

/// `max` of a dimension without an upper bound.
const UNBOUNDED: usize = usize::MAX;

impl Dimension {
    /// Any extent.
    pub const DYNAMIC: Self = Self { min: 0, max: UNBOUNDED, symbol: 0 };

    /// Exactly `extent`.
    #[must_use]
    pub const fn fixed(extent: usize) -> Self {
        Self { min: extent, max: extent, symbol: 0 }
    }

    /// From `min` to `max`, both included; `None` is no upper bound.
    #[must_use]
    pub fn bounded(min: usize, max: Option<usize>) -> Self {
        Self { min, max: max.unwrap_or(UNBOUNDED).max(min), symbol: 0 }
    }

    /// The same interval, equal to every other dimension that carries the symbol (0 is none).
    #[must_use]
    pub fn with_symbol(mut self, symbol: u32) -> Self {
        self.symbol = if self.is_static() { 0 } else { symbol };
        self
    }

    /// The symbol, if there is one.
    #[must_use]
    pub fn symbol(self) -> Option<u32> {
        (self.symbol != 0).then_some(self.symbol)
    }

    /// Whether the extent is known.
    #[must_use]
    pub fn is_static(self) -> bool {
        self.min == self.max
    }

    /// The extent, if known.
    #[must_use]
    pub fn value(self) -> Option<usize> {
        self.is_static().then_some(self.min)
    }

    /// Smallest extent.
    #[must_use]
    pub fn min(self) -> usize {
        self.min
    }

    /// Largest extent, if bounded.
    #[must_use]
    pub fn max(self) -> Option<usize> {
        (self.max != UNBOUNDED).then_some(self.max)
    }

    /// Whether `extent` lies in the interval.
    #[must_use]
    pub fn admits(self, extent: usize) -> bool {
        (self.min..=self.max).contains(&extent)
    }

    /// Whether both are certainly the same extent.
    #[must_use]
    pub fn same(self, other: Self) -> bool {
        (self.is_static() && self == other) || (self.symbol != 0 && self.symbol == other.symbol)
    }

    /// What both allow, or `None` when they contradict each other.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        let symbol = if self.symbol != 0 { self.symbol } else { other.symbol };
        (min <= max).then(|| Self { min, max, symbol: 0 }.with_symbol(symbol))
    }

    /// The smallest interval that covers both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.same(other) {
            return self;
        }
        Self { min: self.min.min(other.min), max: self.max.max(other.max), symbol: 0 }
    }

    /// The interval after a function that does not decrease; the symbol is lost unless the value is known.
    #[must_use]
    pub fn map(self, f: impl Fn(usize) -> usize) -> Self {
        let min = f(self.min);
        let max = if self.max == UNBOUNDED { UNBOUNDED } else { f(self.max) };
        Self { min, max: max.max(min), symbol: 0 }
    }

    /// Sum of two dimensions.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "bounds saturate, which an operator would hide"
    )]
    pub fn add(self, other: Self) -> Self {
        match (self.value(), other.value()) {
            (Some(0), _) => other,
            (_, Some(0)) => self,
            _ => Self {
                min: self.min.saturating_add(other.min),
                max: self.max.saturating_add(other.max),
                symbol: 0,
            },
        }
    }

    /// Product of two dimensions.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "bounds saturate, which an operator would hide"
    )]
    pub fn mul(self, other: Self) -> Self {
        match (self.value(), other.value()) {
            (Some(1), _) => other,
            (_, Some(1)) => self,
            (Some(0), _) | (_, Some(0)) => Self::fixed(0),
            _ => Self {
                min: self.min.saturating_mul(other.min),
                max: if self.max == UNBOUNDED || other.max == UNBOUNDED {
                    UNBOUNDED
                } else {
                    self.max.saturating_mul(other.max)
                },
                symbol: 0,
            },
        }
    }
}

impl From<usize> for Dimension {
    fn from(extent: usize) -> Self {
        Self::fixed(extent)
    }
}

impl fmt::Display for Dimension {
    /// `3`, `?`, `1..8`, `2..`, as OpenVINO prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, "{min}"),
            (0, UNBOUNDED) => f.write_str("?"),
            (min, UNBOUNDED) => write!(f, "{min}.."),
            (min, max) => write!(f, "{min}..{max}"),
        }
    }
}

/// Dimensions of a value in a model, or nothing known at all, not even the rank.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct PartialShape(Option<SmallVec<[Dimension; 5]>>);

impl PartialShape {
    /// A shape of known rank.
    #[must_use]
    pub fn new(dims: &[Dimension]) -> Self {
        Self(Some(SmallVec::from_slice(dims)))
    }

    /// A shape whose rank is not known.
    #[must_use]
    pub fn dynamic() -> Self {
        Self(None)
    }

    /// A shape of this rank with every extent unknown.
    #[must_use]
    pub fn dynamic_rank(rank: usize) -> Self {
        Self(Some(SmallVec::from_elem(Dimension::DYNAMIC, rank)))
    }

    /// The rank, if known.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.0.as_ref().map(SmallVec::len)
    }

    /// The dimensions, if the rank is known.
    #[must_use]
    pub fn dims(&self) -> Option<&[Dimension]> {
        self.0.as_deref()
    }

    /// The dimensions to change, if the rank is known.
    pub fn dims_mut(&mut self) -> Option<&mut [Dimension]> {
        self.0.as_deref_mut()
    }

    /// Dimension `axis`, or a dynamic one when the rank is unknown or too small.
    #[must_use]
    pub fn dim(&self, axis: usize) -> Dimension {
        self.dims().and_then(|d| d.get(axis)).copied().unwrap_or(Dimension::DYNAMIC)
    }

    /// The shape, if every dimension is known.
    #[must_use]
    pub fn to_shape(&self) -> Option<Shape> {
        self.dims()?
            .iter()
            .map(|d| d.value())
            .collect::<Option<SmallVec<[usize; 6]>>>()
            .map(|d| Shape::new(&d))
    }

    /// Whether every dimension is known.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.dims().is_some_and(|d| d.iter().all(|d| d.is_static()))
    }

    /// Whether a tensor of this shape fits.
    #[must_use]
    pub fn admits(&self, shape: &[usize]) -> bool {
        self.dims().is_none_or(|dims| {
            dims.len() == shape.len() && dims.iter().zip(shape).all(|(d, s)| d.admits(*s))
        })
    }

    /// What both allow, or `None` when they contradict each other.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self.dims(), other.dims()) {
            (None, _) => Some(other.clone()),
            (_, None) => Some(self.clone()),
            (Some(a), Some(b)) if a.len() == b.len() => {
                a.iter().zip(b).map(|(a, b)| a.intersect(*b)).collect::<Option<Self>>()
            }
            _ => None,
        }
    }

    /// The smallest partial shape that covers both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self.dims(), other.dims()) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                a.iter().zip(b).map(|(a, b)| a.union(*b)).collect()
            }
            _ => Self::dynamic(),
        }
    }
}

impl FromIterator<Dimension> for PartialShape {
    fn from_iter<I: IntoIterator<Item = Dimension>>(dims: I) -> Self {
        Self(Some(dims.into_iter().collect()))
    }
}

impl From<&Shape> for PartialShape {
    fn from(shape: &Shape) -> Self {
        shape.iter().map(|d| Dimension::fixed(*d)).collect()
    }
}

impl From<Shape> for PartialShape {
    fn from(shape: Shape) -> Self {
        Self::from(&shape)
    }
}

impl<const N: usize> From<[usize; N]> for PartialShape {
    fn from(dims: [usize; N]) -> Self {
        dims.iter().map(|d| Dimension::fixed(*d)).collect()
    }
}

impl fmt::Display for PartialShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = self.dims() else { return f.write_str("[...]") };
        f.write_str("[")?;
        for (i, d) in dims.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for PartialShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
