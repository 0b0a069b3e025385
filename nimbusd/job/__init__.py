"""Job files: what people write, checked and made into a `Job` that every process can hold."""

from nimbusd.job.apart import CheckedJob, read_apart
from nimbusd.job.check import Findings, check_job
from nimbusd.job.job import Job, StageSpec
from nimbusd.job.model import JobFile, Limits
from nimbusd.job.problems import JobError, Problem
from nimbusd.job.reader import LoadedJob, load_job, read_job

__all__ = [
    "CheckedJob",
    "Findings",
    "Job",
    "JobError",
    "JobFile",
    "Limits",
    "LoadedJob",
    "Problem",
    "StageSpec",
    "check_job",
    "load_job",
    "read_apart",
    "read_job",
]
