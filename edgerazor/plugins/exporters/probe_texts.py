"""Texts on which tokenizers part: what an engine must split as the tokenizer of the model does."""

import random
from functools import cache

_WRITTEN = (
    "The quick brown fox, the 12 lazy dogs.",
    "it's we'll they'RE don't I'D you'Ve 's 'S' rock'n'roll O'Neil's ''re '",
    "it’s we’ll “quoted” ‘single’ – dash — em… ellipsis",
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 12ab34 1e-9 ²³ ½ Ⅷ ٣٤٥ १२३ 一二三",
    "def load(self, path: str) -> None:\n    return path.read_text()\n\n\n# end\n\tif x:\r\n\t\tpass\r\n",
    'for(int i=0;i<n;++i){a[i]+=b*c;}//x\n/* y */ printf("%d\\n", *p->q); $HOME=`ls -la|wc` && e!=f',
    '{"key": [1, 2.5, null], "url": "https://example.org/a_b/c-d?e=f&g=%20#h", "mail": "a.b@c.de"}',
    "camelCase PascalCase snake_case SCREAMING_CASE HTTPServer iOS eBook McDonald ÉcoleÉté straßeẞ ŁódźŁ ǅungla",
    " leading", "trailing ", "  two  spaces  ", "   three", "a    b\t\tc", "\t", " ", "  ", "     ",
    "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", " \n", "\n ", " \n \n ", "\n\n  x", "a \n b",
    "x\n\n\n\ny", "a\n  \n  b",
    "a\u00a0b\u2003c\u3000d\u200be\u00ade\u2028f\x0bg\x0ch\x00i\x7f\ufeffj",
    "Grüße aus Köln; naïve café, Ærøskøbing, İstanbul ısı, Ångström, œuvre, þorn, ŋ, ﬁ ﬂ",
    "Привет, мир! Как дела? Ёлка-палка. Ελληνικά: Ωμέγα, ἀρχή. Հայերեն ქართული",
    "你好，世界。这是一个测试！今天是2024年5月1日，价格¥123.45。繁體中文測試「引號」",
    "こんにちは世界。カタカナ、ﾊﾝｶｸ、漢字かな交じり文ー々〆。한국어 텍스트입니다. 안녕하세요!",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่างระหว่างคำ ๑๒๓ น้ำ ผู้ใหญ่",
    "مرحبا بالعالم، كيف حالك؟ اللُّغَةُ العَرَبِيَّةُ ٱلسَّلَامُ עברית: שָׁלוֹם עוֹלָם فارسی‌ها",
    "हिन्दी में लिखना: नमस्ते दुनिया। বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം မြန်မာ ភាសាខ្មែរ",
    "emoji 😀👍🏽👨‍👩‍👧‍👦🇩🇪❤️☕️1️⃣ and symbols ∑∫≠∞ © ™ € £ → ★ ♞ ┌─┐ ░▒▓ 𝒳𝔜𝕫 𝟙𝟚",
    "!!!???...---===***((()))[[]]{}<>~~^^``||\\\\//@@##$$%%&&__++;;::\"\"''",
    "a!b?c.d,e;f:g(h)i[j]k{l}m<n>o/p\\q|r@s#t$u%v^w&x*y-z_0+1=2~3`4",
    " !a ?b .c\n,d\n\n(e)\r\n[f] {g}/\n/h\n//\n#\n",
    "x", "é", "字", "😀", "'", "''", "'s", " 's", "1", " 1", "A", "aA", "Aa", "AAa", "aAA",
    "cut: \ufffd\ufffd a\ufffd", "caf\u0301e e\u0301\u0323 n\u0303 \u0301 alone",
    "very" + "long" * 40, "ha" * 60, "=" * 70, "\n" * 30, " " * 70 + "x", "1" * 40, "啊" * 40,
)  # fmt: skip
# Kinds of characters whose neighbourhood decides where a text is split.
_KINDS = (
    "abcxyz", "ABCXYZ", "éßñœ", "ÉÑŒŁ", "ʰʲˈ", "字漢かカ한", "ไทยสน", "\u0e34\u0e49\u0301\u0651\u093f", "0123456789",
    "²½Ⅷ٣१", "'", "'’", " ", " ", "\n", "\r\t\u00a0\u3000", ".,;:!?", "()[]{}<>/\\", "-_=+*#@$%^&~`|\"", "😀★∑€",
    "stdmSTDM", "lvrELVRe", "ابجد", "\u200d\ufe0f",
)  # fmt: skip


@cache
def probe_texts(drawn: int = 200) -> tuple[str, ...]:
    """Written texts, then `drawn` random ones of up to 24 characters, always the same."""
    generator = random.Random(20240229)
    return (*_WRITTEN, *(_draw(generator) for _ in range(drawn)))


def _draw(generator: random.Random) -> str:
    kinds = generator.choices(_KINDS, k=generator.randint(1, 8))
    return "".join(generator.choice(kind) for kind in kinds for _ in range(generator.randint(1, 3)))
