"""A server of exported models: TensorFlow Serving's REST, the Open Inference Protocol v2, `/classify` for people, a demo page.

Import `Client` from `client`, which needs neither TensorFlow nor a package beside Python; `run_server` from `run_server`.
From a request to an answer:

    app            routes, and limits on requests
    tf_serving     JSON of TensorFlow Serving -> tensors -> JSON       tensor_json, errors
    open_inference the same of the Open Inference Protocol v2
    classify       a picture and texts -> labels
    batching       requests that wait are answered together
    models         versions are loaded, warmed, replaced                model_version, signatures
    demo/          a page to try a model on

May import: runs, features, input_names, data, model, tf_text_model.
"""
