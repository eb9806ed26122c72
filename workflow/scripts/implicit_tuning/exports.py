"""Where each public name of the package is defined."""

HOMES = {
    "ChatFormat": "models.chat",
    "Comparison": "judging.alpaca",
    "InvalidOutputs": "judging.outputs",
    "Judge": "judging.judge",
    "JudgingFailed": "judging.judge",
    "OracleJudge": "judging.judges.oracle",
    "Pair": "judging.judge",
    "Ranking": "analysis.api",
    "RuleAdapter": "models.rule_adapter",
    "RuleSettings": "models.rule_adapter",
    "TokenizedConversation": "models.chat",
    "Verdict": "judging.judge",
    "compare": "judging.api",
    "fingerprint": "nodes.api",
    "format_chat": "models.api",
    "mask": "models.api",
    "rank_responses": "analysis.api",
}
