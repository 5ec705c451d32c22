"""Tests of tools/: python tools/test_tools.py"""

from __future__ import annotations

import contextlib
import gzip
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

import convert_mdlm_cnn
import landscape
from kac_io import Cnn1d, ConvGru, ConvRegressor, encode, load, load_module, one_hot, save, subs
from promoter_data import single_linkage
from train_promoter_denoiser import discrete_bound, markov_nll


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_data_start_on_64_bytes(self) -> None:
        path = self.folder / "a.safetensors"
        save(path, {"odd": torch.arange(5, dtype=torch.uint8), "x": torch.randn(3, 4)}, {"kac.card": 'a "quoted" one'})
        header = int.from_bytes(path.read_bytes()[:8], "little")
        self.assertEqual((8 + header) % 64, 0)
        tensors, meta = load(path)
        self.assertEqual(tensors["odd"].tolist(), [0, 1, 2, 3, 4])
        self.assertEqual(meta, {"kac.card": 'a "quoted" one'})

    def test_every_architecture_comes_back(self) -> None:
        x = torch.rand(2, 30, 4).softmax(-1)
        gru = ConvGru(4, 8, 2, norm=True, residual=True).eval()
        text = "conv,pad=same,act=gelu;maxpool,size=4;flatten;dense"
        stack = ConvRegressor(text, "ACGT", 26, [5, 1], [4], suffix="ATGG")
        for net, meta, rows in ((gru, gru.metadata("ACGT"), x), (stack, stack.metadata(), x[:, :26])):
            path = self.folder / "net.safetensors"
            save(path, net.tensors(), meta)
            again, _ = load_module(path)
            torch.testing.assert_close(again(rows), net(rows), rtol=0, atol=0)

    def test_batchnorm_folds(self) -> None:
        torch.manual_seed(0)
        text = "conv,pad=same,act=elu;avgpool,size=3;conv,pad=valid,dilation=2,act=tanh;flatten;dense,act=relu;dense"
        net = ConvRegressor(text, "ACGT", 20, [6, 5, 4, 1], [3, 2], batchnorm=True)
        net(torch.rand(64, 20, 4))
        net.eval()
        x = torch.rand(3, 20, 4)
        before = net(x)
        net.fold()
        torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5)


class Config(dict):
    """Stands for the training config that published checkpoints hold: building it again is an error."""

    def __reduce__(self) -> tuple:
        return (must_not_run, ("config",), {"state": 1}, iter([1]), iter([(1, 2)]))


def must_not_run(text: str) -> None:
    raise AssertionError(f"the checkpoint ran {text}")


class Converter(Files):
    def checkpoint(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        net = Cnn1d(4, 16, 9, [1, 1, 4, 16, 64], embedder=True)
        return {f"backbone.{name}": value for name, value in net.state_dict().items()}

    def run_main(self, *arguments: str) -> None:
        with mock.patch("sys.argv", ["convert_mdlm_cnn.py", *arguments]), contextlib.redirect_stdout(io.StringIO()):
            convert_mdlm_cnn.main()

    def test_checkpoint_and_safetensors(self) -> None:
        state = self.checkpoint()
        checkpoint = {"state_dict": state, "ema": {"decay": 0.9999}, "hyper_parameters": {"config": Config()}}
        torch.save(checkpoint, self.folder / "a.ckpt")
        save(self.folder / "a.safetensors", state, {})
        for source in ("a.ckpt", "a.safetensors"):
            target = self.folder / "out.safetensors"
            self.run_main(str(self.folder / source), str(target), "--length", "50")
            net, meta = load_module(target)
            self.assertEqual(meta["kac.dilations"], "1,1,4,16,64")
            self.assertEqual(meta["kac.length"], "50")
            for name, value in net.state_dict().items():
                torch.testing.assert_close(value, state[f"backbone.{name}"], rtol=0, atol=0)

    def test_errors_are_one_sentence(self) -> None:
        state = self.checkpoint()
        del state["backbone.norms.3.bias"]
        save(self.folder / "a.safetensors", state, {})
        error = io.StringIO()
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(error):
            self.run_main(str(self.folder / "a.safetensors"), str(self.folder / "out.safetensors"))
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("norms.3.bias", error.getvalue())
        self.assertFalse((self.folder / "out.safetensors").exists())

    def test_what_is_not_a_checkpoint_is_refused(self) -> None:
        (self.folder / "a.ckpt").write_text("hello")
        error = io.StringIO()
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(error):
            self.run_main(str(self.folder / "a.ckpt"), str(self.folder / "out.safetensors"))
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("neither", error.getvalue())


class Landscapes(Files):
    def write(self, text: str) -> Path:
        path = self.folder / "table.tsv.gz"
        path.write_bytes(gzip.compress(text.encode()))
        return path

    def test_missing_variants_are_minus_infinity(self) -> None:
        path = self.write("variant\thd\tfitness\nVDGV\t0\t1.0\nAAAC\t4\t0.25\n")
        values = landscape.read(landscape.LANDSCAPES["gb1"], path)
        self.assertEqual(np.isfinite(values).sum(), 2)
        self.assertEqual(values[0, 0, 0, 1], np.float32(0.25))
        self.assertEqual(values.reshape(-1)[1], np.float32(0.25))  # the last site is the fastest

    def test_the_start_codon_is_left_out(self) -> None:
        path = self.write("sequence\tefficiency\nAAAAAAAUGAC\t76\n")
        values = landscape.read(landscape.LANDSCAPES["tis"], path)
        self.assertEqual(values[0, 0, 0, 0, 0, 0, 0, 1], 76)

    def test_the_chain_is_that_of_the_best_tenth(self) -> None:
        values = np.arange(64, dtype=np.float32).reshape(4, 4, 4)  # the best: (3, 2, 0) to (3, 3, 2)
        values[3, 3, 3] = -np.inf
        initial, transition = landscape.fit(values)
        np.testing.assert_allclose(initial, [0.025, 0.025, 0.025, 0.925], rtol=1e-6)
        best = [(3, 2, 0), (3, 2, 1), (3, 2, 2), (3, 2, 3), (3, 3, 0), (3, 3, 1), (3, 3, 2)]
        pair = np.full((4, 4), 0.1 / 16)
        for a, b, c in best:
            pair[a, b] += 0.9 / 14
            pair[b, c] += 0.9 / 14
        np.testing.assert_allclose(transition, pair / pair.sum(1, keepdims=True), rtol=1e-6)

    def test_another_table_is_refused(self) -> None:
        path = self.write("variant\thd\tfitness\nVDGV\t0\t1.0\nVD\t0\t1.0\n")
        with self.assertRaisesRegex(ValueError, "line 3 is not of this table"):
            landscape.read(landscape.LANDSCAPES["gb1"], path)
        with self.assertRaisesRegex(ValueError, "line 2 is not of this table"):
            landscape.read(landscape.LANDSCAPES["tis"], path)


class Numbers(unittest.TestCase):
    def test_encode_names_the_letter(self) -> None:
        with self.assertRaisesRegex(ValueError, "sequence 1: 'N' at position 2"):
            encode(["ACGT", "ACNT"], "ACGT")

    def test_subs_keeps_what_is_revealed(self) -> None:
        tokens = torch.tensor([[2, 4]])
        log_p = subs(torch.randn(1, 2, 5), tokens)
        self.assertEqual(log_p[0, 0].tolist(), [-1e6, -1e6, 0.0, -1e6])
        self.assertAlmostEqual(float(log_p[0, 1].exp().sum()), 1.0, places=6)

    def test_bound_of_a_net_that_knows_nothing_is_ln_4(self) -> None:
        class Flat(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.zeros_like(x)

        x0 = torch.zeros(200, 80, dtype=torch.long)
        for every in (1, 8):
            bound = discrete_bound(Flat(), x0, 64, seed=0, every=every)
            self.assertLess(abs(bound.mean() - np.log(4)), 5 * bound.std() / len(bound) ** 0.5)

    def test_markov_finds_its_own_order(self) -> None:
        tokens = (np.arange(80) + np.random.default_rng(0).integers(0, 4, (500, 1))) % 4
        weight = np.full(500, 1 / 500)
        self.assertLess(markov_nll(tokens, weight, tokens, 1).mean(), 0.03)
        self.assertGreater(markov_nll(tokens, weight, tokens, 0).mean(), 1.3)

    def test_single_linkage(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.integers(0, 4, (2, 80))
        near, window = a.copy(), np.roll(b, 5)
        near[::4] = (near[::4] + 1) % 4
        tokens = np.stack([a, b, near, window]).astype(np.uint8)
        sequences = ["".join("ACGT"[t] for t in row) for row in tokens]
        self.assertEqual(single_linkage(sequences, tokens).tolist(), [0, 1, 0, 1])

    def test_tokens_beyond_the_alphabet_are_zero_rows(self) -> None:
        self.assertEqual(one_hot(torch.tensor([[9, 1]]), 2).tolist(), [[[0.0, 0.0], [0.0, 1.0]]])


if __name__ == "__main__":
    unittest.main()
