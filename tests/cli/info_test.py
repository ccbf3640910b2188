"""hadal info: the published figures, exactly; the machine."""

import json
import os
import tempfile

from program import ProgramTest, golden, hadal, main


def preset(name, *more):
    return json.loads(hadal("info", "--preset", name, "--json", *more).out)


class Info(ProgramTest):
    # Published figures: main parameters, cache bytes a token, the same as MHA, softmax scale.
    PUBLISHED = {
        "v3": (671_026_404_352, 70_272, 4_997_120, 0.1352337788),
        "v2": (235_741_434_880, 69_120, 4_915_200, 0.1352337788),
        "v2-lite": (15_706_484_224, 31_104, 276_480, 0.1147213868),
    }

    def test_presets_have_the_published_figures_in_text_and_json(self):
        for name, (parameters, cache, mha, scale) in self.PUBLISHED.items():
            info = preset(name)
            self.assertEqual(info["parameters"]["main"]["total"], parameters)
            self.assertEqual(info["cache_bytes_per_token"], {"latent_bf16": cache, "mha_bf16": mha})
            self.assertAlmostEqual(info["softmax_scale"], scale, places=9)
            text = self.assert_answers(hadal("info", "--preset", name))
            for number in (parameters, cache, mha):
                self.assertIn(format(number, ","), text)

    def test_parts_add_up_to_the_total(self):
        for name in ("micro", "tiny", "v2-lite", "v2", "v3"):
            for which in ("main", "active", "mtp_unique"):
                parts = dict(preset(name)["parameters"][which])
                total = parts.pop("total")
                self.assertEqual(sum(parts.values()), total, (name, which))

    def test_v3_with_mtp_and_fp8_is_what_was_published(self):
        info = preset("v3")
        self.assertEqual(round(info["parameters"]["mtp_unique"]["total"] / 1e9, 2), 11.61)
        self.assertEqual(round(info["parameters"]["active_without_embedding"] / 1e9, 2), 36.63)
        self.assertEqual(info["checkpoint"]["fp8_tensors"], 91_991)
        self.assertEqual(round(info["checkpoint"]["fp8_bytes"] / 2**30, 1), 641.3)

    def test_sparse_attention_of_v32_adds_its_indexer(self):
        v3 = preset("v3")
        config = {**v3["config"], "model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"]}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "config.json")
            with open(path, "w") as file:
                json.dump(config, file)
            info = json.loads(self.assert_answers(hadal("info", path, "--context", "131072", "--json")))
            text = self.assert_answers(hadal("info", path))
        self.assertEqual([info["config"][key] for key in ("index_n_heads", "index_head_dim", "index_topk")], [64, 128, 2048])
        layer = 64 * 128 * 1536 + 128 * 7168 + 64 * 7168
        main, dense = info["parameters"]["main"], v3["parameters"]["main"]
        self.assertEqual(main["indexer"], 61 * layer)
        self.assertEqual(main["total"] - dense["total"], 61 * (layer + 2 * 128))
        self.assertEqual(info["cache_bytes_per_token"]["latent_bf16"], 70_272 + 61 * 256)
        self.assertEqual(
            info["flops_per_token"]["decode_absorbed"]["attention"],
            2 * 61 * (128 * 2048 * (576 + 512) + 64 * 128 * 131072),
        )
        self.assertIn("DeepSeek-V3.2", text)
        self.assertIn("2,048 keys a token, chosen by 64 index heads of 128", text)

    def test_flops_follow_the_context(self):
        short, long = (preset("v3", "--context", n)["flops_per_token"] for n in ("1000", "2000"))
        self.assertEqual((short["context"], long["context"]), (1000, 2000))
        for form in ("decode_absorbed", "prefill_expanded_mean"):
            self.assertEqual(short[form]["layers"], long[form]["layers"])
            self.assertEqual(short[form]["total"], sum(short[form][k] for k in ("layers", "head", "attention")))
        self.assertEqual(short["decode_absorbed"]["attention"], 2 * 61 * 128 * 1000 * (576 + 512))
        self.assertEqual(short["prefill_expanded_mean"]["attention"], 61 * 128 * (192 + 128) * 1001)

    def test_a_context_beyond_the_model_is_refused(self):
        self.assert_fails(hadal("info", "--preset", "v3", "--context", "163841"), 1, "--context 163841", "163840")

    def test_a_model_folder_and_its_config_give_the_same(self):
        for case in ("v3-tiny", "v2-tiny", "v3-yarn", "v3-mtp"):
            folder = golden(case)
            if not os.path.isdir(folder):
                folder = os.path.join("tests/golden", case)
            one = json.loads(self.assert_answers(hadal("info", folder, "--json")))
            two = json.loads(self.assert_answers(hadal("info", os.path.join(folder, "config.json"), "--json")))
            one.pop("source"), two.pop("source")
            self.assertEqual(one, two)

    def test_the_config_it_prints_is_the_model_again(self):
        for name in ("micro", "tiny", "v2-lite", "v2", "v3"):
            first = preset(name)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "config.json")
                with open(path, "w") as file:
                    json.dump(first["config"], file)
                second = json.loads(self.assert_answers(hadal("info", path, "--json")))
            first.pop("source"), second.pop("source")
            self.assertEqual(first, second)

    def test_without_a_model_it_describes_the_machine(self):
        info = json.loads(self.assert_answers(hadal("info", "--json")))
        self.assertRegex(info["version"], r"^hadal \d")
        self.assertGreaterEqual(info["cores"], 1)
        self.assertGreater(info["memory_bytes"], 2**20)
        self.assertIsInstance(info["isa"], list)
        self.assertIsInstance(info["gpus"], list)
        self.assertIn(info["kernels"], ("avx512bf16", "avx512vnni", "avx512", "avx2", "scalar"))
        text = self.assert_answers(hadal("info"))
        for label in ("version", "build", "cpu", "isa", "kernels", "cores", "memory", "GPU", "hadal-compute", "LibTorch"):
            self.assertRegex(text, "(?m)^%s  *." % label)


if __name__ == "__main__":
    main()
