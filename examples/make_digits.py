#!/usr/bin/env python3
"""Writes the data of the reverse-the-digits examples: the same rows every time.

    python3 examples/make_digits.py [DIR]        # DIR defaults to examples/digits

digits.jsonl, digits_eval.jsonl   {"prompt": "12345=", "answer": "54321"}: prompts for PPO, the answer for its reward
digits_sft.jsonl                  {"prompt": "12345=", "completion": "54321"}: to learn from by example
digits_pairs.jsonl, digits_pairs_eval.jsonl
                                  {"prompt": "12345=", "chosen": "54321", "rejected": "54391"}: the second has a mistake
digits.txt                        what the tokenizer is learned from
"""

import json
import os
import random
import sys

LENGTH = 5
ROWS = {"digits": 4000, "digits_eval": 256, "digits_sft": 4000}
PAIRS = {"digits_pairs": 4000, "digits_pairs_eval": 256}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits")
    os.makedirs(folder, exist_ok=True)
    # Drawn without replacement: no number is in two files.
    numbers = random.Random(1).sample(range(10**LENGTH), sum(ROWS.values()))
    draw = random.Random(2)
    others = draw.sample(sorted(set(range(10**LENGTH)) - set(numbers)), sum(PAIRS.values()))
    for name, rows in ROWS.items():
        answer = "completion" if name == "digits_sft" else "answer"
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as file:
            for number in (numbers.pop() for _ in range(rows)):
                digits = f"{number:0{LENGTH}}"
                print(json.dumps({"prompt": digits + "=", answer: digits[::-1]}), file=file)
    for name, rows in PAIRS.items():
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as file:
            for number in (others.pop() for _ in range(rows)):
                digits = f"{number:0{LENGTH}}"
                right = digits[::-1]
                place = draw.randrange(LENGTH)
                wrong = draw.choice([digit for digit in "0123456789" if digit != right[place]])
                mistaken = right[:place] + wrong + right[place + 1 :]
                print(json.dumps({"prompt": digits + "=", "chosen": right, "rejected": mistaken}), file=file)
    with open(os.path.join(folder, "digits.txt"), "w", encoding="utf-8") as file:
        print("0123456789=", file=file)


if __name__ == "__main__":
    main()
