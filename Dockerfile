# One image for every service: the command picks which (`python -m services.order.main`, `orderflow migrate`).
# The target `lambda`, with requirements-lambda.lock, is the same for Lambda, where the command names a handler.
# The target `sandbox` adds the Stripe-like server, which production does not need.
ARG PYTHON_IMAGE=python:3.13-slim
ARG LOCK=requirements-image.lock

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
ARG LOCK
COPY ${LOCK} ./
# pip's configuration comes as secrets, so that no layer keeps a password in an index's address. All are optional.
# Proxies come as Docker's predefined build arguments.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_index_url \
    --mount=type=secret,id=pip_extra_index_url \
    --mount=type=secret,id=pip_trusted_host \
    --mount=type=secret,id=pip_cert \
    given() { [ -s "/run/secrets/$1" ]; } \
 && if given pip_index_url; then export PIP_INDEX_URL="$(cat /run/secrets/pip_index_url)"; fi \
 && if given pip_extra_index_url; then export PIP_EXTRA_INDEX_URL="$(cat /run/secrets/pip_extra_index_url)"; fi \
 && if given pip_trusted_host; then export PIP_TRUSTED_HOST="$(cat /run/secrets/pip_trusted_host)"; fi \
 && if given pip_cert; then export PIP_CERT=/run/secrets/pip_cert; fi \
 && python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --quiet --require-hashes --requirement ${LOCK}
COPY libs libs
COPY ops ops
COPY services services
COPY --chmod=755 deploy/orderflow /opt/venv/bin/orderflow
# Makes the code readable whatever the checkout's umask was, and compiles it: the service's user can't write.
RUN chmod -R a+rX /app && python -m compileall -q /app

FROM ${PYTHON_IMAGE} AS lambda
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app:/app/libs \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN python -c 'import awslambdaric' # fails if LOCK is another lock
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["services.order.aws_lambda.handler"]

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin orderflow \
 && install --directory --owner orderflow --group orderflow /var/lib/orderflow
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app:/app/libs \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000
USER orderflow
EXPOSE 8000
STOPSIGNAL SIGTERM

FROM runtime AS sandbox
USER root
COPY sandbox sandbox
RUN chmod -R a+rX sandbox && python -m compileall -q sandbox
USER orderflow
CMD ["python", "-m", "sandbox.stripe"]

FROM runtime AS service
CMD ["orderflow", "--help"]
