"""Made-up articles for the data tests: as many as wanted, none like another."""

import datetime as dt
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORDS = [
    "市府",
    "工程",
    "學校",
    "市民",
    "交通",
    "捷運",
    "公園",
    "觀光",
    "農民",
    "產業",
    "補助",
    "計畫",
    "颱風",
    "防汛",
    "水庫",
    "醫院",
    "疫苗",
    "長照",
    "社區",
    "文化",
    "古蹟",
    "藝術",
    "節慶",
    "運動",
    "選手",
    "比賽",
    "警方",
    "消防",
    "環保",
    "空氣",
    "能源",
    "光電",
    "半導體",
    "園區",
    "企業",
    "投資",
    "就業",
    "青年",
    "教育",
    "老師",
    "學生",
    "圖書館",
    "安全",
    "道路",
    "橋梁",
    "停車",
    "稅收",
    "預算",
    "議會",
    "法規",
    "宣布",
    "推動",
    "完成",
    "啟用",
    "表示",
    "呼籲",
    "加強",
    "持續",
    "爭取",
    "協助",
    "提供",
    "檢討",
    "改善",
    "規劃",
    "視察",
    "開放",
    "參與",
    "合作",
    "成果",
    "超過",
    "明年",
    "今年",
    "上午",
    "下午",
    "地方",
    "中央",
    "全國",
]


def seeded(seed: int) -> random.Random:
    """Return a generator that gives the same test data each time."""
    return random.Random(seed)


def article(number: int, sentences: int = 12, **fields: Any) -> dict[str, Any]:
    """Return an article that shares no sentence with another number's."""
    rng = seeded(number)

    def clause() -> str:
        return "".join(rng.choices(WORDS, k=rng.randint(4, 8)))

    content = "".join(f"{clause()}，{clause()}。" for _ in range(sentences))
    day = dt.date(2024, 1, 1) + dt.timedelta(days=number % 300)
    return {"content": content, "title": f"{clause()} {number}號", "date": day.isoformat(), **fields}


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
