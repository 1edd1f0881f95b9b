"""Size and shape of a base model, known before it is downloaded."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Size and shape of a base model."""

    title: str
    """What people call it."""
    names: tuple[str, ...]
    """What ``model.base`` can name it."""
    layers: int
    """Tells it from the other sizes in a local directory."""
    parameters: float
    """All that are stored, towers for pictures and sound included."""
    text_parameters: float
    """Those that a GGUF file holds."""
    stored_bytes: int
    """Bytes for one weight in the base model's files."""
    largest_tensor: float
    """Elements of the largest tensor."""
    linear: dict[str, int]
    """Rows plus columns of all matrices of a name: what each rank of an adapter adds."""
    cache_bytes: int
    """Keys and values of one token, in 16 bits."""
    on_gpu: bool
    """Whether its figures were measured on a GPU, else on two CPU cores."""
    measured_as: str | None = None
    """Another size, of like work, whose figures stand for this one's where nothing was measured."""

    @property
    def gib(self) -> float:
        """Size of the base model's files."""
        return self.parameters * self.stored_bytes / 2**30

    def adapter_gib(self, rank: int, targets: tuple[str, ...]) -> float:
        """Return the size of an adapter in float32."""
        return 4 * rank * sum(self.linear.get(name, 0) for name in targets) / 2**30


def linear_sides(
    *, layers: int, own_kv: int, hidden: int, attention: int, kv: int, feed_forward: int
) -> dict[str, int]:
    """Return rows plus columns of all matrices of each name, for layers of one shape.

    Args:
        layers: number of layers.
        own_kv: those with keys and values of their own.
        hidden: width of the stream.
        attention: heads times their dimension.
        kv: key heads times their dimension.
        feed_forward: width of the feed-forward layer.
    """
    outer, inner, mlp = layers * (hidden + attention), own_kv * (hidden + kv), layers * (hidden + feed_forward)
    names = ("gate_proj", "up_proj", "down_proj")
    return {"q_proj": outer, "o_proj": outer, "k_proj": inner, "v_proj": inner} | dict.fromkeys(names, mlp)
