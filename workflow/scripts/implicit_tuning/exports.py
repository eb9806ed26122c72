"""Where each public name of the package is defined."""

HOMES = {
    "ChatFormat": "chat",
    "Comparison": "judging.alpaca",
    "InvalidOutputs": "judging.rows",
    "Judge": "judging.judge",
    "JudgingFailed": "judging.judge",
    "OracleJudge": "judging.oracle",
    "Pair": "judging.judge",
    "Ranking": "candidates",
    "RuleAdapter": "rule_adapter",
    "RuleSettings": "rule_adapter",
    "TokenizedConversation": "chat",
    "Verdict": "judging.judge",
    "compare": "judging.head_to_head",
    "fingerprint": "nodes.api",
    "format_chat": "chat_encoding",
    "mask": "chat_encoding",
    "rank_responses": "candidates",
}
