"""Writes divergences.json: what a student's distance from its teacher is, and its derivative with respect to the student's logits.

Run by hand with torch 2.11.0; the result is committed. Everything is torch's own `log_softmax` and `kl_div`, in f64. The generalised
Jensen-Shannon divergence is put together of those as in TRL's generalized_jsd_loss:
mixture = (1 - beta) student + beta teacher, loss = beta KL(teacher || mixture) + (1 - beta) KL(student || mixture).
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F

assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
VOCAB, K, TEMPERATURE = 13, 4, 1.7


def kl(p, q):
    """KL(p || q) of log-probs."""
    return F.kl_div(q, p, reduction="sum", log_target=True)


def divergence(kind, beta, teacher, student):
    if kind == "forward":
        return kl(teacher, student)
    if kind == "backward":
        return kl(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def with_tail(logits, ids):
    """Log-probs of the tokens, and of all others together."""
    others = torch.ones(VOCAB, dtype=torch.bool)
    others[ids] = False
    logprobs = F.log_softmax(logits, -1)
    return torch.cat([logprobs[ids], torch.logsumexp(logprobs[others], 0, keepdim=True)])


cases = []
for kind in ["forward", "backward", "js"]:
    for beta in [0.5] if kind != "js" else [0.5, 0.1, 0.8]:
        for renormalize in [True, False]:
            teacher = (torch.randn(VOCAB) * 2).float().double()
            student = (torch.randn(VOCAB) * 2).float().double().requires_grad_()
            ids = torch.topk(teacher, K).indices
            scaled = [logits / TEMPERATURE for logits in (teacher, student)]
            if renormalize:
                both = [F.log_softmax(logits[ids], -1) for logits in scaled]
            else:
                both = [with_tail(logits, ids) for logits in scaled]
            loss = divergence(kind, beta, *both)
            (gradient,) = torch.autograd.grad(loss, [student])
            cases.append(dict(kind=kind, beta=beta, renormalize=renormalize, temperature=TEMPERATURE, ids=ids.tolist(),
                              teacher=teacher.tolist(), student=student.tolist(), loss=loss.item(),
                              gradient=gradient.tolist()))

path = pathlib.Path(__file__).with_name("divergences.json")
path.write_text(json.dumps(cases, indent=1) + "\n")
