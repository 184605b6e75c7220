//! Networks of experts, and how tokens are sent to them.

use super::Keys;
use crate::error::Result;
use crate::model::config::{ExpertGroups, ExpertsConfig, ModelConfig, Scoring, SharedExpert};

impl Keys<'_, '_> {
    /// The experts, where the file says that there are any; with the softmax of all as shares that sum to one.
    pub(crate) fn experts(&self) -> Result<Option<ExpertsConfig>> {
        let n_expert = self.optional("expert_count")?.unwrap_or(0);
        if n_expert == 0 {
            return Ok(None);
        }
        let n_expert = self.checked_width("expert_count", n_expert)?;
        let n_used = self.count("expert_used_count")?;
        if n_used > n_expert {
            return Err(self.invalid("expert_used_count", n_used, "it can't exceed expert_count"));
        }
        Ok(Some(ExpertsConfig {
            n_expert,
            n_used,
            scoring: Scoring::Softmax,
            normalize: true,
            scale: self.factor("expert_weights_scale")?,
            groups: self.expert_groups(n_expert, n_used)?,
            shared: None,
        }))
    }

    fn expert_groups(&self, n_expert: usize, n_used: usize) -> Result<Option<ExpertGroups>> {
        let key = "expert_group_count";
        let n_group = self.optional(key)?.unwrap_or(0);
        if n_group <= 1 {
            return Ok(None);
        }
        if !n_expert.is_multiple_of(n_group) {
            return Err(self.invalid(key, n_group, "it must divide expert_count"));
        }
        let groups = ExpertGroups { n_group, n_used: self.count("expert_group_used_count")? };
        if groups.n_used > n_group || n_used > groups.n_used * (n_expert / n_group) {
            let rule =
                "it can't exceed expert_group_count, and so many groups must have expert_used_count experts";
            return Err(self.invalid("expert_group_used_count", groups.n_used, rule));
        }
        Ok(Some(groups))
    }

    /// Experts of an architecture that always has them.
    pub(crate) fn required_experts(&self) -> Result<ExpertsConfig> {
        self.count("expert_count")?;
        self.experts()?.ok_or_else(|| self.invalid("expert_count", 0, "it must be at least 1"))
    }

    /// The same with shares that sum to one only where the file says so, and with shared experts, which are as one of
    /// their widths together.
    pub(crate) fn experts_and_shared(&self, scoring: Scoring) -> Result<ExpertsConfig> {
        let mut experts = self.required_experts()?;
        experts.scoring = self.scoring(scoring)?;
        experts.normalize = self.optional("expert_weights_norm")?.unwrap_or(false);
        let n_shared = self.optional("expert_shared_count")?.filter(|n| *n > 0_usize);
        if let Some(n_shared) = n_shared {
            let n_ff = self.width("expert_feed_forward_length")?.saturating_mul(n_shared);
            let n_ff = self.checked_width("expert_shared_count", n_ff)?;
            experts.shared = Some(SharedExpert { n_ff, gated: false });
        }
        Ok(experts)
    }

    /// What the file says of scoring, else `default`.
    pub(crate) fn scoring(&self, default: Scoring) -> Result<Scoring> {
        let key = "expert_gating_func";
        match self.optional::<u32>(key)?.unwrap_or(0) {
            0 => Ok(default),
            1 => Ok(Scoring::Softmax),
            2 => Ok(Scoring::Sigmoid),
            3 => Ok(Scoring::SoftmaxOfUsed),
            other => {
                Err(self.invalid(key, other, "known are 1 (softmax), 2 (sigmoid), 3 (softmax of the used)"))
            }
        }
    }

    /// Width of an expert: of its own key, or that of the network.
    pub(crate) fn set_experts(&self, config: &mut ModelConfig, experts: &ExpertsConfig) -> Result<()> {
        let n_ff = self.optional_width("expert_feed_forward_length")?;
        let n_dense = self.optional("leading_dense_block_count")?.unwrap_or(0);
        for ffn in config.layers.iter_mut().skip(n_dense).filter_map(|layer| layer.ffn.as_mut()) {
            ffn.n_ff = n_ff.unwrap_or(ffn.n_ff);
            ffn.experts = Some(experts.clone());
        }
        Ok(())
    }
}
