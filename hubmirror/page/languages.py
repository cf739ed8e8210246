"""
The languages of the page: chooses the one that a browser prefers, and translates the texts.
"""

from __future__ import annotations

from collections.abc import Sequence

LANGUAGES = {"en": "English", "zh": "中文"}
"""
The languages by their tags (RFC 5646).  The first is the default.
"""

_CHINESE = {
    # The template.
    "This is a mirror of container registries: your machines pull images through it, under the"
    " same names. It stores nothing.": (
        "这是容器镜像仓库的镜像站：您的机器通过它拉取镜像，镜像名称保持不变。它不存储任何内容。"
    ),
    "Name of an image": "镜像名称",
    "Search": "搜索",
    "Settings for your client": "客户端设置",
    "With these, the names of images stay as they are.": "使用这些设置后，镜像名称无需改动。",
    "State": "状态",
    "Registry": "镜像仓库",
    "State now": "当前状态",
    "Pulls left without an account": "匿名拉取剩余次数",
    "Responses in progress:": "正在传输的响应：",
    # The view.
    "Search {registry}": "搜索 {registry}",
    "Language": "语言",
    "Copy": "复制",
    "Tags": "标签",
    "official": "官方",
    "stars": "星标",
    "Nothing was found.": "没有找到结果。",
    "Next page": "下一页",
    "The search does not answer now. Try again later.": "搜索服务暂时没有响应，请稍后再试。",
    "reachable": "可用",
    "reachable through another upstream": "通过其他上游可用",
    "not reachable now": "暂时不可用",
    "not known": "未知",
    "{remaining} of {limit}": "剩余 {remaining} 次，共 {limit} 次",
    "There are no settings for this client and this address.": "此客户端无法使用此地址。",
    "Copied.": "已复制。",
    "Selected; copy it with your keyboard.": "已选中，请用键盘复制。",
    "The tags can't be had now. Try again later.": "暂时无法获取标签，请稍后再试。",
    "There are no tags.": "没有标签。",
    "tags": "个标签",
    # hubmirror.operations.clientconfig
    "Join it with what is there already. Then: systemctl reload docker": (
        "请与文件中已有的内容合并，然后执行：systemctl reload docker"
    ),
    "Docker takes a path from 25 on.": "Docker 25 及以上版本支持路径。",
    "In place of the other from Docker 29 on, with its containerd image store."
    " Read at every pull.": (
        "从 Docker 29 起（使用 containerd 镜像存储时）代替上一个文件。每次拉取时读取。"
    ),
    "Read at every pull. ctr wants --hosts-dir /etc/containerd/certs.d with it.": (
        "每次拉取时读取。使用 ctr 时请加上 --hosts-dir /etc/containerd/certs.d。"
    ),
    "Only if it does not say so already. Then: systemctl restart containerd": (
        "仅在文件中还没有这项设置时需要。然后执行：systemctl restart containerd"
    ),
    "Read at every pull.": "每次拉取时读取。",
    "Then: systemctl reload crio": "然后执行：systemctl reload crio",
    "Then: systemctl restart buildkit": "然后执行：systemctl restart buildkit",
    "For buildx: docker buildx create --use --buildkitd-config THIS-FILE": (
        "用于 buildx：docker buildx create --use --buildkitd-config 此文件"
    ),
    "On every node. Then: systemctl restart k3s (on agents: k3s-agent)": (
        "在每个节点上设置。然后执行：systemctl restart k3s（agent 节点：k3s-agent）"
    ),
}


def translate(text: str, language: str) -> str:
    """
    Translate a text of the page to one of L{LANGUAGES}.

    @param text: the text in English.
    @param language: the tag of the language.
    @raise KeyError: when there is no translation.
    """
    return text if language == "en" else _CHINESE[text]


def chooseLanguage(asked: Sequence[str], accepted: Sequence[str]) -> str:
    """
    Choose the language for a request.

    @param asked: the language tags in the request's query, which take precedence; the first that
        is known is used.
    @param accepted: the request's C{Accept-Language} fields (RFC 9110 12.5.4).
    """
    for tag in asked:
        if tag in LANGUAGES:
            return tag
    best, weight = "en", 0.0
    for member in ",".join(accepted).split(","):
        tag, _, parameter = member.strip().lower().partition(";")
        language = tag.strip().partition("-")[0]
        quality = _quality(parameter)
        if language in LANGUAGES and quality > weight:
            best, weight = language, quality
    return best


def _quality(parameter: str) -> float:
    """
    The weight of a language (RFC 9110 12.4.2); 0 when it is malformed.
    """
    name, _, value = parameter.strip().partition("=")
    if not parameter.strip():
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if name.strip() == "q" and 0 <= quality <= 1 else 0.0
