"""A program that judges completions: how many of the digits stand where the row's answer has them.

Reads a line of JSON for each completion and answers each with one: {"id": ..., "score": ...}. Its standard error is for people.
"""

import json
import sys

for line in sys.stdin:
    asked = json.loads(line)
    answer, completion = asked["row"]["answer"], asked["completion"]
    right = sum(a == b for a, b in zip(answer, completion))
    longest = max(len(answer), len(completion))
    print(json.dumps({"id": asked["id"], "score": right / longest}), flush=True)
