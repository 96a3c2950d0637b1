//! Where each parameter lies in the flat buffer.
//!
//! All parameters of a model live in one buffer, so that an optimizer step is a handful of operations whatever the
//! number of layers, and a refit is a list of offsets. Matrices come first, vectors (norms and biases) after them: the
//! first part is subject to weight decay, the second is not. q, k and v lie side by side and are one matrix to the
//! forward pass; so are up and gate. TensorRT-LLM has the same matrices, rows in the same order (`attention.qkv`,
//! `mlp.fused_fc`), so that a refit can point right into this buffer.

use crate::model::ModelSpec;

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
}

/// Parameters that the forward pass uses as one: the rows of its slots, one below the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The name, with `qkv_proj` or `up_gate_proj` in place of the parts.
    pub(super) key: String,
    pub(super) slots: Vec<Slot>,
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
    /// Elements in all, gaps included.
    pub(super) len: usize,
}

impl Layout {
    pub(super) fn new(spec: &ModelSpec) -> Self {
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
                None => groups.push(Group { key, slots: vec![slot] }),
            }
        }
        groups.sort_by_key(|group| group.slots[0].shape.len() < 2); // stable: matrices, then vectors
        let mut layout = Self { groups, decayed: 0, len: 0 };
        layout.place();
        layout
    }

    fn place(&mut self) {
        for group in &mut self.groups {
            let mut offset = self.len;
            for slot in &mut group.slots {
                slot.offset = offset;
                offset += slot.elements();
            }
            self.len = offset.next_multiple_of(ALIGNMENT);
            if group.slots[0].shape.len() >= 2 {
                self.decayed = self.len;
            }
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|group| &group.slots)
    }
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
            let layout = Layout::new(&spec);
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
            let layout = Layout::new(&spec);
            for slot in layout.slots() {
                assert_eq!(slot.offset < layout.decayed, slot.shape.len() == 2, "{}", slot.name);
            }
        }
    }

    #[test]
    fn q_k_and_v_lie_side_by_side() {
        let spec = &testing::specs()[0];
        let layout = Layout::new(spec);
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
