//! Where each parameter lies in the flat buffer.
//!
//! All parameters of a model live in one buffer, so that an optimizer step is a handful of operations whatever the
//! number of layers, and a refit is a list of offsets. Matrices come first, vectors (norms and biases) after them: the
//! first part is subject to weight decay, the second is not. What does not learn comes last, so that gradient, moments and
//! master weights are as long as what learns, and offsets are the same in all of them. q, k and v lie side by side and are one matrix to the
//! forward pass; so are up and gate. TensorRT-LLM has the same matrices, rows in the same order (`attention.qkv`,
//! `mlp.fused_fc`), so that a refit can point right into this buffer.

use std::ops::Range;

use super::{Error, Learns, Result};
use crate::model::{Lora, ModelSpec, lora_name};

/// Groups start at multiples of this many elements: 64 bytes in bf16, 128 in f32.
const ALIGNMENT: usize = 32;

/// A parameter as the checkpoint names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// First element, in the flat buffer.
    pub(super) offset: usize,
}

impl Slot {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.elements()
    }
}

/// Parameters that the forward pass uses as one: the rows of its slots, one below the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The name, with `qkv_proj` or `up_gate_proj` in place of the parts.
    pub(super) key: String,
    pub(super) slots: Vec<Slot>,
    pub(super) learns: bool,
    /// Whether it is an adapter's, rather than the model's own.
    is_adapter: bool,
}

impl Group {
    pub(super) fn offset(&self) -> usize {
        self.slots[0].offset
    }

    pub(super) fn elements(&self) -> usize {
        self.slots.iter().map(Slot::elements).sum()
    }

    pub(super) fn shape(&self) -> Vec<i64> {
        let mut shape: Vec<i64> = self.slots[0].shape.iter().map(|&extent| extent as i64).collect();
        shape[0] = self.slots.iter().map(|slot| slot.shape[0] as i64).sum();
        shape
    }
}

/// Every group of a model, in the order of the buffer.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) groups: Vec<Group>,
    /// Elements subject to weight decay: the first so many.
    pub(super) decayed: usize,
    /// Elements that learn, gaps included: the first so many.
    pub(super) learned: usize,
    /// Elements in all, gaps included.
    pub(super) len: usize,
    lora: Option<Lora>,
}

/// Low-rank matrices beside those of a group: `y = x W^T + scale (x A^T) B^T` for each slot that has them.
#[derive(Clone, Debug)]
pub(super) struct AdapterPlace {
    pub(super) key: String,
    /// A of one slot below that of the other: `[parts x rank, inputs]`.
    pub(super) a: Range<usize>,
    pub(super) inputs: usize,
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) parts: Vec<AdapterPart>,
}

impl AdapterPlace {
    /// Numbers of a row that went through A.
    pub(super) fn width(&self) -> usize {
        self.parts.len() * self.rank
    }

    /// Those that are of one part.
    pub(super) fn columns(&self, part: usize) -> Range<usize> {
        part * self.rank..(part + 1) * self.rank
    }
}

/// The adapter of one slot.
#[derive(Clone, Debug)]
pub(super) struct AdapterPart {
    /// `[outputs, rank]`
    pub(super) b: Range<usize>,
    /// The slot's outputs among those of the group.
    pub(super) columns: Range<usize>,
    /// The slot itself.
    pub(super) weight: Range<usize>,
}

impl Layout {
    /// Places a model's parameters, and those of an adapter.
    pub(super) fn new(spec: &ModelSpec, learns: &Learns) -> Result<Self> {
        learns.check(spec)?;
        let mut groups = own_groups(spec);
        for group in &mut groups {
            group.learns = learns.learns(&group.slots[0].name);
            if let Some(other) =
                group.slots.iter().find(|slot| learns.learns(&slot.name) != group.learns)
            {
                // They are one matrix to passes, whose gradient is made or not.
                let rule = format!("all of {} or none", group.key);
                return Err(Error::input("frozen parameters", rule, &other.name));
            }
        }
        if let Some(lora) = learns.lora() {
            let adapted: Vec<Group> =
                groups.iter().flat_map(|group| adapter_groups(group, lora)).collect();
            groups.extend(adapted);
        }
        // Stable: what learns, matrices and then vectors; then what does not.
        groups.sort_by_key(|group| (!group.learns, group.slots[0].shape.len() < 2));
        let lora = learns.lora().cloned();
        let mut layout = Self { groups, decayed: 0, learned: 0, len: 0, lora };
        layout.place();
        Ok(layout)
    }

    fn place(&mut self) {
        for group in &mut self.groups {
            let mut offset = self.len;
            for slot in &mut group.slots {
                slot.offset = offset;
                offset += slot.elements();
            }
            self.len = offset.next_multiple_of(ALIGNMENT);
            if group.learns {
                self.learned = self.len;
            }
            if group.learns && group.slots[0].shape.len() >= 2 {
                self.decayed = self.len;
            }
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }

    /// Returns the model's own parameters, which are all those of its checkpoint.
    pub(super) fn own_slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().filter(|group| !group.is_adapter).flat_map(|group| &group.slots)
    }

    /// Returns what learns.
    pub(super) fn learned_slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().filter(|group| group.learns).flat_map(|group| &group.slots)
    }

    pub(super) fn group(&self, key: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.key == key)
    }

    pub(super) fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// Returns the adapter beside the matrix of a module, where it has one.
    pub(super) fn adapter(&self, module: &str) -> Option<AdapterPlace> {
        let lora = self.lora.as_ref()?;
        let own = self.group(&format!("{module}.weight"))?;
        let a = self.group(&lora_name(&own.key, "lora_A"))?;
        let b = self.group(&lora_name(&own.key, "lora_B"))?;
        let mut start = 0;
        let mut parts = Vec::new();
        for slot in &own.slots {
            let columns = start..start + slot.shape[0];
            start = columns.end;
            let name = lora_name(&slot.name, "lora_B");
            let part = |b: &Slot| AdapterPart { b: b.range(), columns, weight: slot.range() };
            parts.extend(b.slots.iter().find(|b| b.name == name).map(part));
        }
        Some(AdapterPlace {
            key: own.key.clone(),
            a: a.offset()..a.offset() + a.elements(),
            inputs: own.slots[0].shape[1],
            rank: lora.rank,
            scale: lora.scale(),
            parts,
        })
    }

    /// Returns every adapter.
    pub(super) fn adapters(&self) -> impl Iterator<Item = AdapterPlace> {
        let modules = self.groups.iter().filter_map(|group| group.key.strip_suffix(".weight"));
        modules.filter_map(|module| self.adapter(module))
    }
}

/// Returns A and B beside a group, if any of its slots has them.
fn adapter_groups(group: &Group, lora: &Lora) -> Vec<Group> {
    let adapted: Vec<&Slot> = group.slots.iter().filter(|slot| lora.adapts(&slot.name)).collect();
    if adapted.is_empty() {
        return Vec::new();
    }
    let of = |part: &str, shape: &dyn Fn(&Slot) -> Vec<usize>| Group {
        key: lora_name(&group.key, part),
        slots: adapted
            .iter()
            .map(|slot| Slot { name: lora_name(&slot.name, part), shape: shape(slot), offset: 0 })
            .collect(),
        learns: true,
        is_adapter: true,
    };
    vec![
        of("lora_A", &|slot| vec![lora.rank, slot.shape[1]]),
        of("lora_B", &|slot| vec![slot.shape[0], lora.rank]),
    ]
}

/// Returns the groups of a model's own parameters.
fn own_groups(spec: &ModelSpec) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for tensor in spec.tensors() {
        let key = group_key(&tensor.name);
        let slot = Slot { name: tensor.name, shape: tensor.shape, offset: 0 };
        // A group's parts are near each other in the list, so look from its end.
        match groups.iter_mut().rev().find(|group| group.key == key) {
            Some(group) => {
                group.slots.push(slot);
                // Checkpoints list gate before up; `fused_fc` has up before gate.
                group.slots.sort_by_key(|slot| slot.name.contains(".gate_proj."));
            }
            None => {
                groups.push(Group { key, slots: vec![slot], learns: true, is_adapter: false });
            }
        }
    }
    groups
}

fn group_key(name: &str) -> String {
    for part in ["q_proj", "k_proj", "v_proj"] {
        if name.contains(part) {
            return name.replace(part, "qkv_proj");
        }
    }
    name.replace(".gate_proj", ".up_gate_proj").replace(".up_proj", ".up_gate_proj")
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn every_tensor_has_a_place_of_its_own() {
        for spec in testing::specs() {
            let layout = Layout::new(&spec, &Learns::default()).unwrap();
            let mut slots: Vec<&Slot> = layout.slots().collect();
            assert_eq!(slots.len(), spec.tensors().len());
            slots.sort_by_key(|slot| slot.offset);
            for pair in slots.windows(2) {
                assert!(pair[0].offset + pair[0].elements() <= pair[1].offset);
            }
            assert_eq!(
                layout.slots().map(Slot::elements).sum::<usize>(),
                spec.parameters(),
                "nothing is lost"
            );
        }
    }

    #[test]
    fn only_matrices_decay() {
        for spec in testing::specs() {
            let layout = Layout::new(&spec, &Learns::default()).unwrap();
            for slot in layout.slots() {
                assert_eq!(slot.offset < layout.decayed, slot.shape.len() == 2, "{}", slot.name);
            }
        }
    }

    #[test]
    fn q_k_and_v_lie_side_by_side() {
        let spec = &testing::specs()[0];
        let layout = Layout::new(spec, &Learns::default()).unwrap();
        let key = "model.layers.0.self_attn.qkv_proj.weight";
        let group = layout.groups.iter().find(|group| group.key == key).unwrap();
        assert_eq!(group.shape()[0] as usize, spec.q_size() + 2 * spec.kv_size());
        let names: Vec<&str> = group.slots.iter().map(|slot| slot.name.as_str()).collect();
        assert!(
            names[0].contains("q_proj")
                && names[1].contains("k_proj")
                && names[2].contains("v_proj")
        );
        assert_eq!(group.slots[1].offset, group.offset() + group.slots[0].elements());
    }
}
