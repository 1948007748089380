"""LangChain adapters over the verbs of `locas_agent`: none yet, they arrive with the LangChain issue.

Holds no logic of its own and knows nothing of tensors or tables. The package exists now so that the distribution's three import packages
and the floors between them are fixed and checked from the first version on.
"""

__all__: list[str] = []
