//! Rotary positions, and contexts that are stretched beyond what a model was first trained for.

use metallic_gguf::FromValue;

use super::Keys;
use crate::error::Result;
use crate::model::config::{RopeConfig, RopePairs, Yarn};

impl<'a> Keys<'a, '_> {
    /// How many values of a head turn.
    pub(crate) fn n_rot(&self, key_length: usize) -> Result<usize> {
        let n_rot = self.optional("rope.dimension_count")?.unwrap_or(key_length);
        if n_rot > key_length || !n_rot.is_multiple_of(2) {
            let rule = "it must be even and no longer than a head";
            return Err(self.invalid("rope.dimension_count", n_rot, rule));
        }
        Ok(n_rot)
    }

    pub(crate) fn rope(&self, pairs: RopePairs, n_rot: usize) -> Result<RopeConfig> {
        let mut rope = RopeConfig {
            pairs,
            n_rot,
            freq_base: self.optional("rope.freq_base")?.unwrap_or(10_000.0),
            freq_scale: 1.0,
            attn_factor: self.optional("rope.scaling.attn_factor")?.unwrap_or(1.0),
            yarn: None,
        };
        let factor = match self.optional::<f32>("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.optional("rope.scale_linear")?.unwrap_or(0.0), // what files of 2023 call it
        };
        if !factor.is_finite() || factor < 0.0 {
            return Err(self.invalid("rope.scaling.factor", factor, "it must be a positive number"));
        }
        let kind: &str = self.optional("rope.scaling.type")?.unwrap_or("linear");
        if factor == 0.0 || ["none", "longrope"].contains(&kind) {
            return Ok(rope); // 0 stands for "not scaled" in files; long contexts have factors in a tensor
        }
        rope.freq_scale = 1.0 / factor;
        match kind {
            "linear" => {}
            "yarn" => {
                rope.yarn = Some(Yarn {
                    original_context: self.original_context()?,
                    ext_factor: self.optional("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                    beta_fast: self.optional("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.optional("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                });
                if let Some(factor) = self.optional("rope.scaling.yarn_attn_factor")? {
                    rope.attn_factor = factor;
                }
            }
            other => {
                let rule = "known are none, linear, yarn and longrope";
                return Err(self.invalid("rope.scaling.type", other, rule));
            }
        }
        Ok(rope)
    }

    /// The context that a model was first trained for: that of the file, unless it says another.
    pub(super) fn original_context<T: FromValue<'a>>(&self) -> Result<T> {
        let key = "rope.scaling.original_context_length";
        if self.has(key) {
            self.count(key)?;
            return self.required(key);
        }
        self.required("context_length")
    }
}

/// Makes rotations what they were when the model was first trained.
pub(in crate::model::arch) fn unstretched(rope: &mut RopeConfig) {
    (rope.freq_scale, rope.attn_factor, rope.yarn) = (1.0, 1.0, None);
}
