"""A reward for kac by a PyTorch network: copy this file and put your network in (docs/workers.md).

A count and so many sequences in, a line of numbers for each out; a batch goes through the network at once.
"""
import sys

if "--help" in sys.argv:
    sys.exit(print(__doc__))
try:
    import torch
    from torch import nn
except ImportError as error:
    how = "pip install torch in a virtual environment, and its python in the command"
    sys.exit(f"torch_reward.py needs PyTorch: {how} ({error})")

LETTERS = "ACGT"  # in the order of your network's input


def network():
    # Put your own here, such as
    #     net = MyNet()
    #     net.load_state_dict(torch.load("my_reward.pt", map_location="cpu", weights_only=True))
    #     return net
    torch.manual_seed(0)  # this one is random, to show the form only
    first = nn.Conv1d(len(LETTERS), 16, 7, padding=3)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 1))


def encode(sequences):  # [sequences, letters, sites], one at the letter, as Conv1d wants it
    index = torch.tensor([[LETTERS.index(letter) for letter in sequence] for sequence in sequences])
    return torch.nn.functional.one_hot(index, len(LETTERS)).float().transpose(1, 2)


torch.set_num_threads(1)  # the other cores are for kac and for other copies of this
device = "cuda" if torch.cuda.is_available() else "cpu"
net = network().to(device).eval()  # eval: no dropout, so that a sequence always gets the same number

while count := sys.stdin.readline():
    batch = [sys.stdin.readline().strip() for _ in range(int(count))]
    with torch.no_grad():
        scores = net(encode(batch).to(device)).reshape(len(batch), -1).tolist()
    for row in scores:  # rounded, because the last digits may depend on what else is in the batch
        print(*(f"{score:.5g}" for score in row))
    sys.stdout.flush()
