"""The backbone as a teacher: it writes questions about a chunk and answers them with the chunk before it."""

from locas_agent.study.teacher.asked import Answer, Candidate, Opening, Request, ScoredAnswer
from locas_agent.study.teacher.teacher import Teacher

__all__ = ["Answer", "Candidate", "Opening", "Request", "ScoredAnswer", "Teacher"]
