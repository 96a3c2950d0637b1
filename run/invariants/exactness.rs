//! What is exact because both sides were computed over the same micro-batches: see [`crate::trainer::batch`].

use super::Breach;

/// Checks that the policy's ratio was 1 at the first optimizer step, given its largest distance from 1 there.
pub(super) fn check_ratio(first_ratio_error: f64, tolerance: f64) -> Result<(), Breach> {
    // Written so that a distance that is no number is a breach.
    Breach::unless(first_ratio_error <= tolerance, || {
        let what = "the ratio's distance from 1 at the first optimizer step";
        (what.into(), format!("at most {tolerance}"), first_ratio_error)
    })
}

/// Checks that a policy which has not moved gives the reference's log-probs, bit for bit.
pub(super) fn check_kl(old_logprobs: &[f32], ref_logprobs: &[f32]) -> Result<(), Breach> {
    let mut pairs = old_logprobs.iter().zip(ref_logprobs).enumerate();
    // Unequal, or no numbers.
    let apart =
        pairs.find(|(_, (old, reference))| old.to_bits() != reference.to_bits() || old.is_nan());
    let Some((row, (old, reference))) = apart else { return Ok(()) };
    Err(Breach {
        what: "the KL from the reference before the first optimizer step".into(),
        rule: "0: the policy is its reference".into(),
        got: format!("log-probs {old} and {reference} for loss token {row}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_one_holds_and_any_other_does_not() {
        check_ratio(0.0, 0.0).unwrap();
        check_ratio(0.01, 0.02).unwrap();
        let said = check_ratio(1e-9, 0.0).unwrap_err().to_string();
        assert!(
            said.ends_with("first optimizer step must be at most 0, got 0.000000001"),
            "{said}"
        );
        assert!(check_ratio(f64::NAN, 1.0).is_err());
    }

    #[test]
    fn log_probs_that_differ_by_a_bit_are_a_breach() {
        let ours = [-0.5, -1.25];
        check_kl(&ours, &ours).unwrap();
        let next = [-0.5, f32::from_bits((-1.25f32).to_bits() + 1)];
        let said = check_kl(&ours, &next).unwrap_err().to_string();
        assert!(said.contains("got log-probs -1.25 and -1.2500001 for loss token 1"), "{said}");
        assert!(check_kl(&[f32::NAN], &[f32::NAN]).is_err());
    }
}
