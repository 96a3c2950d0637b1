//! Whether an engine's refittable tensors are those of the weight map.
//!
//! TensorRT takes a subset in silence and keeps the old values of the rest. So every name is accounted for before
//! anything is bound.

use std::collections::{BTreeMap, BTreeSet};

use super::staging::data_type;
use crate::{
    ffi::tensorrt_llm::WeightInfo,
    model::{
        ModelSpec,
        tensorrt_llm::{Layout, Mapped, tensors},
    },
    rollout::Dtype,
};

/// What a tensor of an engine must be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The policy.
    pub(super) spec: ModelSpec,
    /// How the engine cuts it, as far as its config.json tells.
    pub(super) layout: Layout,
    /// Which part is this engine's.
    pub(super) rank: usize,
    /// The engine's number format.
    pub(super) dtype: Dtype,
}

/// An engine's tensors, all accounted for.
#[derive(Clone, Debug)]
pub(super) struct Covered {
    /// Those that the policy has values for.
    pub(super) map: Vec<Mapped>,
    /// Constants of the network, which keep their values: rotary tables and the like.
    pub(super) fixed: Vec<String>,
}

/// Constants that TensorRT-LLM names beside a layer's parameters.
const FIXED: [&str; 4] = ["rotary_inv_freq", "embed_positions", "rotary_cos_sin", "alibi_slopes"];

impl Expected {
    /// Accounts for every tensor.
    ///
    /// # Errors
    /// One line on all of them: those that are missing, extra, of another format or number of elements.
    pub(super) fn cover(&self, infos: &[WeightInfo]) -> Result<Covered, String> {
        let names: BTreeMap<&str, &WeightInfo> =
            infos.iter().map(|info| (info.name.as_str(), info)).collect();
        let layout = self.layout.as_named(names.keys().copied());
        let map = tensors(&self.spec, &layout, self.rank).map_err(|error| error.to_string())?;
        let known: BTreeSet<&str> = map.iter().map(|mapped| mapped.name.as_str()).collect();
        let unknown = names.keys().copied().filter(|name| !known.contains(name));
        let (extra, fixed): (Vec<&str>, Vec<&str>) = unknown.partition(|name| is_parameter(name));
        let missing = known.iter().copied().filter(|name| !names.contains_key(name)).collect();
        let misfit =
            map.iter().filter_map(|mapped| self.misfit(mapped, names.get(mapped.name.as_str())?));
        let misfit: Vec<String> = misfit.collect();
        let problems = [
            list("missing", missing),
            list("extra", extra),
            list("", misfit.iter().map(String::as_str).collect()),
        ];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        if !problems.is_empty() {
            return Err(format!(
                "the engine's tensors are not the policy's: {}",
                problems.join("; ")
            ));
        }
        let fixed = fixed.into_iter().map(str::to_owned).collect();
        Ok(Covered { map, fixed })
    }

    fn misfit(&self, mapped: &Mapped, info: &WeightInfo) -> Option<String> {
        let (count, dtype) = (mapped.elements(), data_type(self.dtype));
        if info.dtype != dtype {
            return Some(format!("{} must be {:?}, got {:?}", mapped.name, dtype, info.dtype));
        }
        (info.count != count)
            .then(|| format!("{} must have {count} elements, got {}", mapped.name, info.count))
    }
}

/// Says whether a name is that of something a trainer would train. Other names are those of the network's constants, which
/// a refittable engine lists too.
fn is_parameter(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let fixed = FIXED.iter().any(|known| last.starts_with(known));
    let inside = ["transformer.", "lm_head."].iter().any(|start| name.starts_with(start));
    !fixed && (inside || last == "weight" || last == "bias")
}

/// Returns a few of the names under a heading; nothing where there are none.
fn list(heading: &str, names: Vec<&str>) -> Option<String> {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return None;
    }
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    let text = if heading.is_empty() { shown } else { format!("{heading} {shown}") };
    Some(if more > 0 { format!("{text} and {more} more") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::EngineModel, ffi::tensorrt_llm::DataType};

    fn expected() -> Expected {
        let spec = EngineModel::tiny(0).spec;
        Expected { spec, layout: Layout::checkpoint(1), rank: 0, dtype: Dtype::F32 }
    }

    fn engine() -> Vec<WeightInfo> {
        let Expected { spec, layout, .. } = expected();
        let info = |mapped: &Mapped| WeightInfo {
            name: mapped.name.clone(),
            dtype: DataType::F32,
            count: mapped.elements(),
        };
        let mut infos: Vec<_> = tensors(&spec, &layout, 0).unwrap().iter().map(info).collect();
        let fixed = WeightInfo { name: "rotary_inv_freq".into(), dtype: DataType::F32, count: 4 };
        infos.push(fixed);
        infos
    }

    #[test]
    fn every_tensor_is_accounted_for() {
        let covered = expected().cover(&engine()).unwrap();
        assert_eq!(covered.map.len(), engine().len() - 1);
        assert_eq!(covered.fixed, ["rotary_inv_freq"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut infos = engine();
        infos.retain(|info| info.name != "transformer.ln_f.weight");
        infos[0].dtype = DataType::Bf16;
        infos[1].count += 1;
        infos.push(WeightInfo {
            name: "transformer.layers.0.mlp.router.weight".into(),
            dtype: DataType::F32,
            count: 8,
        });
        let error = expected().cover(&infos).unwrap_err();
        assert_eq!(
            error,
            "the engine's tensors are not the policy's: missing transformer.ln_f.weight; \
             extra transformer.layers.0.mlp.router.weight; \
             transformer.vocab_embedding.weight must be F32, got Bf16, \
             transformer.layers.0.input_layernorm.weight must have 32 elements, got 33"
        );
    }

    #[test]
    fn constants_of_the_network_are_no_parameters() {
        for name in [
            "transformer.layers.0.attention.embed_positions_for_gpt_attention",
            "rotary_inv_freq",
            "(Unnamed Layer* 12) [Constant]",
        ] {
            assert!(!is_parameter(name), "{name}");
        }
        assert!(is_parameter("adapter.weight") && is_parameter("transformer.layers.0.mlp.scale"));
    }
}
