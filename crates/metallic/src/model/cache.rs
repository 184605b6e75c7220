//! What a layer remembers of the positions before: keys and values of all, or a state of fixed size.

use super::config::{AttentionConfig, LayerConfig, MixerConfig, ModelConfig};
use super::kv_cache::PAGE_LEN;
use super::part::{Parts, mixer_of};
use crate::backend::{Backend, KvLayout, KvType};
use crate::error::{Error, Result};

/// The memory of one layer, of all sequences.
pub(crate) enum Cache<B: Backend> {
    /// Keys and values, in pages.
    Pages(B::KvLayer),
    /// States of a fixed size.
    States(States<B::Buffer>),
}

/// What a layer with a state remembers, of one sequence after another.
pub(crate) struct States<V> {
    /// The last inputs of a convolution.
    pub(crate) history: V,
    /// Empty where the layer has but a convolution.
    pub(crate) state: V,
}

/// How large the memory of one layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheSize {
    /// Pages of this layout, for so many query heads.
    Pages { n_head: usize, layout: KvLayout },
    /// Values of a sequence.
    States { history: usize, state: usize },
}

impl CacheSize {
    /// Of a layer that mixes tokens so.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn new(mixer: &MixerConfig, kv_type: KvType) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "the state of a sequence" };
        let product = |factors: &[usize]| {
            factors.iter().try_fold(1_usize, |product, n| product.checked_mul(*n)).ok_or_else(too_large)
        };
        let states = |history: &[usize], state: &[usize]| {
            Ok(CacheSize::States { history: product(history)?, state: product(state)? })
        };
        match mixer {
            MixerConfig::Attention(config) => Self::pages(config, kv_type),
            MixerConfig::Latent(config) => Self::pages(&config.attention, kv_type),
            MixerConfig::ShortConv(config) => states(&[config.length - 1, config.n_channels], &[0]),
            MixerConfig::Mamba2(config) => states(
                &[config.conv_length - 1, config.shape.n_channels()],
                &[config.shape.n_head, config.shape.head_dim, config.shape.d_state],
            ),
            MixerConfig::DeltaNet(config) => states(
                &[config.conv_length - 1, config.shape.n_channels()],
                &[config.shape.n_value_head, config.shape.key_dim, config.shape.value_dim],
            ),
        }
    }

    fn pages(config: &AttentionConfig, kv_type: KvType) -> Result<Self> {
        let AttentionConfig { n_head, n_head_kv, key_length, value_length, .. } = *config;
        let layout = KvLayout::new(kv_type, PAGE_LEN, n_head_kv, key_length, value_length);
        Ok(CacheSize::Pages { n_head, layout: layout.ok_or(Error::TooLarge { what: "the KV cache" })? })
    }

    /// Bytes of a page, or 0.
    pub(crate) fn page_bytes(&self) -> Option<usize> {
        match self {
            CacheSize::Pages { layout, .. } => {
                let [keys, values] = layout.page_bytes();
                keys.checked_add(values)
            }
            CacheSize::States { .. } => Some(0),
        }
    }

    /// Bytes of the state of a sequence, or 0.
    pub(crate) fn state_bytes(&self) -> Option<usize> {
        match self {
            CacheSize::Pages { .. } => Some(0),
            CacheSize::States { history, state } => {
                history.checked_add(*state)?.checked_mul(size_of::<f32>())
            }
        }
    }

    /// Allocates it.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn allocate<B: Backend>(
        &self,
        backend: &B,
        n_pages: usize,
        n_sequences: usize,
    ) -> Result<Cache<B>> {
        match self {
            CacheSize::Pages { layout, .. } => Ok(Cache::Pages(backend.kv_layer(layout, n_pages)?)),
            CacheSize::States { history, state } => Ok(Cache::States(States {
                history: backend.buffer("the last inputs of a convolution", history * n_sequences)?,
                state: backend.buffer("recurrent state", state * n_sequences)?,
            })),
        }
    }
}

/// The query heads and the layout of each layer that keeps keys and values.
pub(crate) fn layouts(sizes: &[Option<CacheSize>]) -> Vec<(usize, KvLayout)> {
    let pages = |size: &Option<CacheSize>| match *size {
        Some(CacheSize::Pages { n_head, layout }) => Some((n_head, layout)),
        Some(CacheSize::States { .. }) | None => None,
    };
    sizes.iter().filter_map(pages).collect()
}

/// The memory of each layer whose mixer is among some of the parts.
///
/// # Errors
/// A size beyond the address space.
pub(crate) fn sizes(config: &ModelConfig, parts: &Parts, kv_type: KvType) -> Result<Vec<Option<CacheSize>>> {
    let layers = config.layers.iter().enumerate();
    let size = |(i, layer): (usize, &LayerConfig)| {
        parts.has(mixer_of(i)).then(|| CacheSize::new(&layer.mixer, kv_type)).transpose()
    };
    layers.map(size).collect()
}
